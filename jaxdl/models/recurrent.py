"""Recurrent nets over sequences of unequal length: plain RNN, LSTM and GRU."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.models.layers.cells import GRU, LSTM, RNN, Cell, recurrence
from jaxdl.parallel import differing_alike
from jaxdl.types import Array, Key, Model, Params, PyTree

Initializer = jax.nn.initializers.Initializer
Output = Literal["last", "all"]

_glorot: Initializer = jax.nn.initializers.glorot_uniform()
_orthogonal: Initializer = jax.nn.initializers.orthogonal()


class Sequences(NamedTuple):
    """A batch of sequences `x` `[n, time, features]`, of which the first `lengths` `[n]` count.

    `lengths` are integers in `[0, time]`. Later steps, even NaN, change neither results nor
    gradients. A sequence of length 0 ends in the initial state, zeros.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> x = jnp.ones((2, 3, 1)).at[0, 1:].set(jnp.nan)  # the first has one step, the second three
    >>> sequences = jaxdl.Sequences(x, lengths=jnp.array([1, 3]))
    >>> model = jaxdl.gru(hidden=4, out=2)
    >>> params = jax.jit(model.init)(jax.random.key(0), sequences)
    >>> bool(jnp.isfinite(jax.jit(model.apply)(params, sequences)).all())
    True
    """

    x: Array
    lengths: Array


def rnn(hidden: int, out: int | None, **options: Any) -> Model:
    """A plain (Elman) net, `h = tanh(W [x, 1, h])`; arguments, shapes and errors as `lstm`.

    Elman 1990, Finding structure in time, Cognitive Science 14. It has no `forget_bias`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.rnn(hidden=1, out=None), jnp.zeros((1, 2, 1))  # one sequence of two steps
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> ones = jax.tree.map(jnp.ones_like, shapes)
    >>> f"{jax.jit(model.apply)(ones, x).item():.3f}"  # tanh(1 + tanh(1))
    '0.943'
    """
    return _model(RNN, hidden, out, **options)


def lstm(hidden: int, out: int | None, *, forget_bias: float = 1.0, **options: Any) -> Model:
    """Long short-term memory (Hochreiter, Schmidhuber 1997), with forget gates (Gers et al. 2000).

        i, f, o = sigmoid(W_ifo [x, 1, h])    c = f * c + i * tanh(W_g [x, 1, h])
        h = o * tanh(c)

    The input is `[n, time, features]`, or `Sequences`; the output is `[n, out]` or
    `[n, time, out]`. Per layer and direction, the parameters are `input` `[features, 4 * hidden]`,
    `recurrent` and `bias`. Gates are in the order i, f, g, o of PyTorch and cuDNN. These have two
    biases; `bias` is their sum.

    Args:
        hidden: width of the state, per direction.
        out: width of the linear head; None leaves it out.
        forget_bias: initial bias of the forget gate; 1 keeps memory at the beginning.
        layers: number of stacked layers.
        bidirectional: a second net runs from the end of each sequence to its start. The states of
            both are concatenated. "last" then means the last state of each net, at opposite ends.
        output: "last": the head gets the last state. "all": it gets every state; after the end of a
            sequence come zeros.
        input_init: for the input weights, gate by gate, and for the head.
        recurrent_init: for the state weights, gate by gate.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.lstm(hidden=8, out=5, output="all"), jnp.ones((2, 6, 3))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> params["layer_0"]["forward"]["input"].shape
    (3, 32)
    >>> jax.eval_shape(model.apply, params, x).shape  # one prediction per step
    (2, 6, 5)

    Raises:
        InputError: for a width or count below 1, or an unknown output; at init and apply, for
            inputs that are not floating-point `[n, time, features]` with at least one step.
    """

    def bias(hidden: int) -> Array:
        return jnp.zeros((4, hidden)).at[1].set(forget_bias).reshape(-1)

    return _model(LSTM, hidden, out, bias=bias, **options)


def gru(hidden: int, out: int | None, **options: Any) -> Model:
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078); arguments and shapes as `lstm`.

        r, z = sigmoid(W_rz [x, 1, h])    n = tanh(W_n [x, 1] + r * (U_n [h, 1]))
        h = (1 - z) * n + z * h

    The reset gate acts after the product with the state, as in PyTorch and cuDNN. In the paper's
    first version it acts before. The order is r, z, n. `candidate_bias` multiplies the 1 beside h
    in n.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model = jaxdl.gru(hidden=1, out=None)
    >>> x = jnp.array([[[0.0], [jnp.nan]], [[0.0], [jnp.nan]]])  # two of two steps
    >>> lengths = jnp.array([1, 0])  # they end after one step, and at once
    >>> sequences = jaxdl.Sequences(x, lengths)
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), sequences)
    >>> ones = jax.tree.map(jnp.ones_like, shapes)
    >>> y = jax.jit(model.apply)(ones, sequences)
    >>> [f"{h:.3f}" for h in y[:, 0]]  # (1 - s) * tanh(1 + s) with s = sigmoid(1), and the start
    ['0.253', '0.000']
    """
    return _model(GRU, hidden, out, **options)


def _model(
    cell: Cell,
    hidden: int,
    out: int | None,
    *,
    bias: Callable[[int], Array] | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    output: Output = "last",
    input_init: Initializer = _glorot,
    recurrent_init: Initializer = _orthogonal,
) -> Model:
    sizes = (hidden, layers, 1 if out is None else out)
    if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise InputError(
            f"hidden={hidden}, out={out} and layers={layers} must be whole numbers of at least 1."
            " Choose such numbers; `layers=2` makes two layers of one width"
        )
    if output not in get_args(Output):
        raise InputError(f"the output is 'last' or 'all', not {output!r}. Choose one of them")
    directions = ("forward", "backward") if bidirectional else ("forward",)

    def init(key: Key, x: PyTree) -> Params:
        features = _sequences(x)[0].shape[2]
        params: dict[str, Any] = {}
        for layer in range(layers):
            params[f"layer_{layer}"] = {
                name: start(jax.random.fold_in(key, 2 * layer + back), features)
                for back, name in enumerate(directions)
            }
            features = hidden * len(directions)
        if out is not None:
            kernel = input_init(jax.random.fold_in(key, 2 * layers), (features, out))
            params["head"] = {"kernel": kernel, "bias": jnp.zeros(out)}
        return params

    def start(key: Key, features: int) -> Params:
        def by_gate(make: Initializer, key: Key, rows: int) -> Array:
            keys = jax.random.split(key, cell.gates)
            return jnp.concatenate([make(each, (rows, hidden)) for each in keys], axis=1)

        input_key, recurrent_key = jax.random.split(key)
        params = {
            "input": by_gate(input_init, input_key, features),
            "recurrent": by_gate(recurrent_init, recurrent_key, hidden),
            "bias": jnp.zeros(cell.gates * hidden) if bias is None else bias(hidden),
        }
        return {**params, "candidate_bias": jnp.zeros(hidden)} if cell is GRU else params

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
    ) -> Array:
        del key, weight  # no dropout, no statistics of the batch
        x, lengths = _sequences(x)
        for layer in range(layers):
            runs = [
                _run(cell, params[f"layer_{layer}"][name], x, lengths, name == "backward")
                for name in directions
            ]
            x = jnp.concatenate([states for _, states in runs], axis=2)
        if output == "last":
            y = jnp.concatenate([last for last, _ in runs], axis=1)
            return y if out is None else _head(params["head"], y)
        y = x if out is None else _head(params["head"], x)
        return y if lengths is None else _padded(y, lengths)

    return Model(init, apply)


def _sequences(given: PyTree) -> tuple[Array, Array | None]:
    x, lengths = given if isinstance(given, tuple) else (given, None)
    if x.ndim != 3 or x.shape[1] < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            "a recurrent net needs floating-point sequences [n, time, features] of at least one"
            f" step, not {x.dtype} {tuple(x.shape)}. Reshape the input; for tokens write a net with"
            " nn.Embed, and give it to jaxdl.pure, or make them one-hot"
        )
    return (x, None) if lengths is None else (_padded(x, lengths), lengths)


def _run(
    cell: Cell, params: Params, x: Array, lengths: Array | None, back: bool
) -> tuple[Array, Array]:
    """One layer in one direction: the last h `[n, hidden]`, and all h `[n, time, hidden]`."""
    n, time, _ = x.shape
    flip = partial(_flipped, lengths=lengths) if back else lambda states: states
    x = jnp.concatenate([flip(x), jnp.ones((n, time, 1), x.dtype)], axis=2)
    weights = cell.matrix(params)
    zeros = jnp.zeros((n, weights.shape[1] // cell.blocks), jnp.result_type(x, weights))
    zeros, _, _ = differing_alike(zeros, x, weights)
    last, states = recurrence(cell, weights, jnp.swapaxes(x, 0, 1), (zeros,) * cell.states)
    states = jnp.swapaxes(states, 0, 1)
    if lengths is None:
        return last[0], flip(states)
    # Steps after the end are computed but not used: earlier steps do not depend on them.
    at = jnp.maximum(lengths - 1, 0)[:, None, None]
    end = jnp.take_along_axis(states, at, axis=1)[:, 0]
    return jnp.where(lengths[:, None] > 0, end, 0), flip(_padded(states, lengths))


def _padded(x: Array, lengths: Array) -> Array:
    """The sequences, with zeros after the end of each."""
    inside = jnp.arange(x.shape[1])[None] < lengths[:, None]
    return jnp.where(inside[:, :, None], x, 0)


def _flipped(x: Array, *, lengths: Array | None) -> Array:
    """Each sequence in reverse order; the padding stays after it."""
    if lengths is None:
        return jnp.flip(x, axis=1)
    time = x.shape[1]
    places = (lengths[:, None] - 1 - jnp.arange(time)[None]) % time
    return jnp.take_along_axis(x, places[:, :, None], axis=1)


def _head(params: Params, x: Array) -> Array:
    return x @ params["kernel"] + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
