"""The cells of recurrent nets, and their recurrence over time with a fast derivative.

One step is a matrix product with all weights of a cell, `[x, 1, h] @ W`, and an elementwise
function of the result and the state. `recurrence` repeats it. The forward pass stores all slopes
that derivatives need. The backward pass is then linear, as in the papers. The gradient of the
weights is *one* product over all steps, instead of a sum over steps. The rule for derivatives is a
tangent map in plain JAX, so every mode and order of differentiation works: reverse over reverse,
forward over reverse, under `vmap`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxdl.types import Array, Params, PyTree

Blocks = Sequence[Float[Array, "n hidden"]]
State = tuple[Float[Array, "n hidden"], ...]


class Cell(NamedTuple):
    """One step of a recurrent net, as functions of arrays `[n, hidden]`.

    `matrix(params)`: the weights as one matrix `[features + 1 + hidden, blocks * hidden]`.
    `step(blocks, state) -> (state, slopes)`: one step from the blocks of `[x, 1, h] @ matrix`. The
        first array of a state is h. `tangent` needs the slopes.
    `tangent(slopes, dblocks, dstate) -> dstate`: the derivative, linear in the last two arguments.
    """

    gates: int
    blocks: int
    states: int
    matrix: Callable[[Params], Float[Array, "rows columns"]]
    step: Callable[[Blocks, State], tuple[State, Any]]
    tangent: Callable[[Any, Blocks, State], State]


# ---- the three cells


def _stacked(params: Params) -> Float[Array, "rows columns"]:
    return jnp.concatenate([params["input"], params["bias"][None], params["recurrent"]])


def _sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return 0.5 * jnp.tanh(0.5 * z) + 0.5  # one vectorised function for all gates


def _rnn_step(blocks: Blocks, state: State) -> tuple[State, Any]:
    del state  # the block contains the product with h already
    h = jnp.tanh(blocks[0])
    return (h,), 1 - h * h


def _rnn_tangent(slope: Any, dblocks: Blocks, dstate: State) -> State:
    del dstate
    return (slope * dblocks[0],)


def _lstm_step(blocks: Blocks, state: State) -> tuple[State, Any]:
    i, f, o = (_sigmoid(blocks[block]) for block in (0, 1, 3))
    g = jnp.tanh(blocks[2])
    before = state[1]
    c = f * before + i * g
    t = jnp.tanh(c)
    slopes = g * (i - i * i), before * (f - f * f), i * (1 - g * g), t * (o - o * o)
    return (o * t, c), (*slopes, f, o * (1 - t * t))


def _lstm_tangent(slopes: Any, dblocks: Blocks, dstate: State) -> State:
    (by_i, by_f, by_g, by_o, f, by_c), (di, df, dg, do) = slopes, dblocks
    dc = f * dstate[1] + by_i * di + by_f * df + by_g * dg
    return by_c * dc + by_o * do, dc


def _gru_matrix(params: Params) -> Float[Array, "rows columns"]:
    """The candidate is two blocks, because the reset gate multiplies the part of the state only."""
    inputs, recurrent = params["input"], params["recurrent"]
    hidden = recurrent.shape[0]
    at = 2 * hidden
    none_of_input, none_of_state = (
        jnp.zeros((w.shape[0], hidden), w.dtype) for w in (inputs, recurrent)
    )
    bias = jnp.concatenate([params["bias"], params["candidate_bias"]])
    return jnp.concatenate(
        [
            jnp.concatenate([inputs, none_of_input], 1),
            bias[None],
            jnp.concatenate([recurrent[:, :at], none_of_state, recurrent[:, at:]], 1),
        ]
    )


def _gru_step(blocks: Blocks, state: State) -> tuple[State, Any]:
    r, z = _sigmoid(blocks[0]), _sigmoid(blocks[1])
    n = jnp.tanh(blocks[2] + r * blocks[3])
    h = n + z * (state[0] - n)
    by_n = (1 - z) * (1 - n * n)
    return (h,), (by_n * blocks[3] * (r - r * r), (state[0] - n) * (z - z * z), by_n, by_n * r, z)


def _gru_tangent(slopes: Any, dblocks: Blocks, dstate: State) -> State:
    (by_r, by_z, by_x, by_h, z), (dr, dz, dx, dh) = slopes, dblocks
    return (z * dstate[0] + by_r * dr + by_z * dz + by_x * dx + by_h * dh,)


RNN = Cell(1, 1, 1, _stacked, _rnn_step, _rnn_tangent)
LSTM = Cell(4, 4, 2, _stacked, _lstm_step, _lstm_tangent)
GRU = Cell(3, 4, 1, _gru_matrix, _gru_step, _gru_tangent)


# ---- many steps


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def recurrence(
    cell: Cell,
    weights: Float[Array, "rows columns"],
    x: Float[Array, "time n inputs"],
    state: State,
) -> tuple[State, Float[Array, "time n hidden"]]:
    """The last state, and h after every step `[time, n, hidden]`.

    `weights` is the result of `Cell.matrix`. `x` is `[time, n, features + 1]`, and its last feature
    is 1. `state` holds the initial arrays `[n, hidden]`.
    """
    last, (states, _, _) = _steps(cell, weights, x, state)
    return last, states


@recurrence.defjvp
def _recurrence_jvp(cell: Cell, primals: PyTree, tangents: PyTree) -> PyTree:
    (weights, x, state), (dweights, dx, dstate) = primals, tangents
    last, (states, seen, slopes) = _steps(cell, weights, x, state)
    time, n, features = x.shape
    # Products of matrices, because with three axes XLA makes a transposed copy for the gradient.
    direct = dx.reshape(time * n, -1) @ weights[:features]
    direct += seen.reshape(time * n, -1) @ dweights

    def step(dstate: State, inputs: PyTree) -> tuple[State, Float[Array, "n hidden"]]:
        direct, slopes = inputs
        dblocks = jnp.split(direct + dstate[0] @ weights[features:], cell.blocks, axis=1)
        dstate = cell.tangent(slopes, dblocks, dstate)
        return dstate, dstate[0]

    dlast, dstates = lax.scan(step, dstate, (direct.reshape(time, n, -1), slopes))
    return (last, states), (dlast, dstates)


def _steps(
    cell: Cell,
    weights: Float[Array, "rows columns"],
    x: Float[Array, "time n inputs"],
    state: State,
) -> tuple[State, Any]:
    """The last state; and per step h, the input `[x, 1, h]` of the product, and the slopes."""

    def step(state: State, x: Float[Array, "n inputs"]) -> tuple[State, Any]:
        seen = jnp.concatenate([x, state[0]], 1)
        state, slopes = cell.step(jnp.split(seen @ weights, cell.blocks, axis=1), state)
        return state, (state[0], seen, slopes)

    return lax.scan(step, state, x)
