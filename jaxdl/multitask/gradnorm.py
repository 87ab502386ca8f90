"""GradNorm (Chen et al. 2018, arXiv:1711.02257)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, needs_losses, weigh_gradients
from jaxdl.types import Count, Key


class GradNormState(NamedTuple):
    """Weights, the state of their optimiser, the losses of the first step, and steps taken."""

    weights: PerTask
    tx_state: optax.OptState
    first_losses: PerTask
    taken: Count


def gradnorm(*, tasks: int, tx: optax.GradientTransformation, alpha: float) -> TaskMethod:
    """Weights that balance the lengths of weighted gradients. A slow task gets a longer gradient.

    The weights `[tasks]` start at 1. `tx` updates them by the gradient of the sum of
    `|weights * lengths - target|`, in which the target counts as a constant. The target of a task
    is the mean weighted length times `(ratio / mean ratio) ** alpha`. The ratio is the loss divided
    by that of the first step, and the mean is over tasks. With `alpha` 0, all targets are equal;
    the paper takes 0.12 to 1.5. Then the weights are rescaled to the sum `tasks`. A step uses the
    weights from before their update (algorithm 1).

    Lengths are those of the given gradients, of all shared parameters. The paper takes only the
    last shared layer, to save time. A weight that would become negative is 0. If the first loss of
    a task is 0, its ratio is 1. The weight of a task with gradient zero changes by the rescaling
    alone.
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
