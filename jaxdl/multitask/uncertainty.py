"""Uncertainty weighting (Kendall, Gal, Cipolla 2018, arXiv:1705.07115)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxdl.multitask.combine import LossWeighting, PerTask, weigh_losses
from jaxdl.types import Key


class UncertaintyState(NamedTuple):
    """Logarithms of the tasks' variances, and the state of their optimiser."""

    log_variances: PerTask
    tx_state: optax.OptState


def uncertainty(
    *, tasks: int, tx: optax.GradientTransformation, gaussian: bool | Sequence[bool] = False
) -> LossWeighting:
    """Weights that are learned precisions: the loss `sum(w * losses + s / 2)`, `w = exp(-s)`.

    The log-variances s start at 0, and `tx` minimises that loss over them. The paper uses the
    optimiser of the net. `gaussian` is one value for all tasks, or one per task. True means that
    the loss is a squared error, the likelihood of a normal distribution. Its weight is halved
    (equation 7). False is equation 10.
    """
    factor = jnp.broadcast_to(jnp.where(jnp.asarray(gaussian), 0.5, 1.0), (tasks,))

    def init() -> UncertaintyState:
        start = jnp.zeros(tasks)
        return UncertaintyState(start, tx.init(start))

    def weigh(
        state: UncertaintyState, losses: PerTask, key: Key | None
    ) -> tuple[PerTask, UncertaintyState]:
        del key  # nothing is random
        weights = factor * jnp.exp(-state.log_variances)
        grads = 0.5 - weights * losses
        updates, tx_state = tx.update(grads, state.tx_state, state.log_variances)
        moved = optax.apply_updates(state.log_variances, updates)
        return weights, UncertaintyState(moved, tx_state)

    return weigh_losses(weigh, init, tasks=tasks)
