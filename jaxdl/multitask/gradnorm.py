"""GradNorm (Chen et al. 2018, arXiv:1711.02257)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, needs_losses, weigh_gradients
from jaxdl.types import Count, Key


class GradNormState(NamedTuple):
    """Weights, their optimiser's state, the losses of the first step, steps taken."""

    weights: PerTask
    tx_state: optax.OptState
    first_losses: PerTask
    taken: Count


def gradnorm(*, tasks: int, tx: optax.GradientTransformation, alpha: float) -> TaskMethod:
    """Weights that balance the lengths of weighted gradients, longer where a task learns slowly.

    The weights `[tasks]` start at 1 and follow by `tx` the gradient of the sum of
    `|weights * lengths - target|`. The target is the mean weighted length, times the loss relative
    to the first step's and to the mean over tasks of that ratio, to the power `alpha` (0: all
    lengths alike; the paper takes 0.12 to 1.5); it counts as a constant. Then they are rescaled to
    the sum `tasks`. A step is taken with the weights as they were before it (algorithm 1).

    Lengths are those of the gradients given, of all shared parameters; the paper, to save time,
    takes the last shared layer's. Where the paper's step would make a weight negative, it is 0. The
    ratio of a loss whose first value is 0 is 1. The weight of a task without a gradient is rescaled
    with the others, and moves by nothing else.
    """

    def init() -> GradNormState:
        start = jnp.ones(tasks)
        return GradNormState(start, tx.init(start), jnp.ones(tasks), jnp.int32(0))

    def weigh(
        state: GradNormState, gram: Gram, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, GradNormState]:
        del key  # nothing is random
        losses = needs_losses(losses, "gradnorm")
        tiny = float(np.finfo(state.weights.dtype).tiny)
        first = jnp.where(state.taken == 0, losses, state.first_losses)
        ratios = jnp.where(first > 0, losses / jnp.where(first > 0, first, 1), 1)
        rates = ratios / jnp.maximum(jnp.mean(ratios), tiny)

        lengths = jnp.sqrt(jnp.diagonal(gram))
        weighted = state.weights * lengths
        target = jnp.mean(weighted) * rates**alpha
        grads = (jnp.sign(weighted - target) * lengths).astype(state.weights.dtype)
        updates, tx_state = tx.update(grads, state.tx_state, state.weights)
        moved = jnp.maximum(optax.apply_updates(state.weights, updates), 0)
        moved = moved * tasks / jnp.maximum(jnp.sum(moved), tiny)
        return state.weights, GradNormState(moved, tx_state, first, state.taken + 1)

    return weigh_gradients(weigh, init, tasks=tasks)
