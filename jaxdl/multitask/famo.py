"""FAMO, fast adaptive multitask optimisation (Liu et al. 2023, arXiv:2306.03792)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.multitask.combine import LossWeighting, PerTask, weigh_losses
from jaxdl.types import Count, Key


class FamoState(NamedTuple):
    """Logits, the state of their optimiser, the log losses of the last step, and steps taken."""

    logits: PerTask
    tx_state: optax.OptState
    log_losses: PerTask
    taken: Count


def famo(*, tasks: int, tx: optax.GradientTransformation, decay: float = 0.001) -> LossWeighting:
    """Weights that make all losses fall at the same rate. They need losses alone (algorithm 1).

    A step descends the logarithms of the losses, weighted by `z = softmax(logits)`. The weights are
    `c * z / losses`, with c such that they sum to 1. Then `tx` updates the logits. Their gradient
    is the fall of the log losses times the Jacobian of the softmax, plus `decay` times the logits.
    So a task whose loss fell faster gets a smaller weight. Losses must be positive, with a lowest
    value near 0.

    The fall is the difference between the losses of two successive steps, so it needs no extra
    forward pass. If the two batches differ, this difference is part of the fall. (The authors' code
    evaluates each batch twice.)
    """

    def init() -> FamoState:
        start = jnp.zeros(tasks)
        return FamoState(start, tx.init(start), jnp.zeros(tasks), jnp.int32(0))

    def weigh(state: FamoState, losses: PerTask, key: Key | None) -> tuple[PerTask, FamoState]:
        del key  # nothing is random
        losses = jnp.maximum(losses, 1e-8)
        log_losses = jnp.log(losses)

        # Now the fall of the last step is known, so its logits get their update.
        _, pull = jax.vjp(jax.nn.softmax, state.logits)
        (fall,) = pull((state.log_losses - log_losses).astype(state.logits.dtype))
        updates, tx_state = tx.update(fall + decay * state.logits, state.tx_state, state.logits)
        learned = optax.apply_updates(state.logits, updates), tx_state
        keep = lambda new, old: jnp.where(state.taken == 0, old, new)  # noqa: E731
        logits, tx_state = jax.tree.map(keep, learned, (state.logits, state.tx_state))

        weights = jax.nn.softmax(logits) / losses
        state = FamoState(logits, tx_state, log_losses, state.taken + 1)
        return weights / jnp.sum(weights), state

    return weigh_losses(weigh, init, tasks=tasks)
