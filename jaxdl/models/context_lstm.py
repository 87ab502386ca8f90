"""An LSTM that reads labelled examples one after another, and then a query."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from jaxdl.models.context import Context
from jaxdl.models.layers.cells import LSTM, State
from jaxdl.models.recurrent import lstm
from jaxdl.types import Array, Key, Model, Params, Weight


def context_lstm(hidden: int, out: int) -> Model:
    """An LSTM from a `Context` to answers `[m, out]`; parameters and errors as of `lstm`.

    Each query is the last step of a sequence of its own, after all examples. An example of weight 0
    does not change the state.

    >>> import jax, jax.numpy as jnp
    >>> context = Context(jnp.ones((5, 3)), jnp.ones(5), jnp.zeros((2, 3)))
    >>> net = context_lstm(hidden=4, out=7)
    >>> params = jax.jit(net.init)(jax.random.key(0), context)
    >>> jax.jit(net.apply)(params, context).shape
    (2, 7)
    """
    whole = lstm(hidden, out)

    def init(key: Key, x: Context) -> Params:
        return whole.init(key, x.examples[None])

    def apply(
        params: Params, x: Context, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "m out"]:
        del key, weight  # no dropout, no statistics of the batch
        weights = LSTM.matrix(params["layer_0"]["forward"])

        def step(state: State, tokens: Float[Array, "k token"]) -> State:
            ones = jnp.ones((len(tokens), 1), tokens.dtype)
            products = jnp.concatenate([tokens, ones, state[0]], axis=1) @ weights
            return LSTM.step(jnp.split(products, LSTM.blocks, axis=1), state)[0]

        def read(
            state: State, example: tuple[Float[Array, " token"], Bool[Array, ""]]
        ) -> tuple[State, None]:
            token, counts = example
            after = step(state, token[None])
            return jax.tree.map(lambda new, old: jnp.where(counts, new, old), after, state), None

        start = (jnp.zeros((1, hidden), weights.dtype),) * LSTM.states
        state, _ = lax.scan(read, start, (x.examples, x.counts))
        each = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(x.queries), axis=0), state)
        h = step(each, x.queries)[0]
        return h @ params["head"]["kernel"] + params["head"]["bias"][None]

    return Model(init, apply)
