"""IMTL, impartial multi-task learning (Liu et al. 2021, openreview.net/forum?id=IMPnRXEWpvr)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.multitask.combine import (
    Gram,
    LossWeighting,
    PerTask,
    TaskMethod,
    needs_losses,
    weigh_gradients,
    weigh_gram,
    weigh_losses,
)
from jaxdl.optim.qp import correlations
from jaxdl.types import Key


def imtl_g() -> TaskMethod:
    """Impartial gradients: the weighted sum that has equal projections on all task gradients.

    The weights add up to 1, and some may be negative. They solve `gram @ weights = c * lengths`.
    If gradients are linearly dependent, the solution has the least sum of squared weights. A
    gradient of zero has weight 0. The sum of opposite gradients is zero.
    """
    return weigh_gram(_impartial)


class ImtlState(NamedTuple):
    """Logarithms of the scales of losses, and the state of their optimiser."""

    log_scales: PerTask
    tx_state: optax.OptState


def imtl_l(*, tasks: int, tx: optax.GradientTransformation) -> LossWeighting:
    """Impartial losses: weights `exp(s)`, where `tx` minimises `sum(exp(s) * losses - s)` over s.

    At the minimum all weighted losses are 1.
    """

    def weigh(state: ImtlState, losses: PerTask, key: Key | None) -> tuple[PerTask, ImtlState]:
        del key  # nothing is random
        return _scaled(state, losses, tx)

    return weigh_losses(weigh, lambda: _start(tasks, tx), tasks=tasks)


def imtl(*, tasks: int, tx: optax.GradientTransformation) -> TaskMethod:
    """The hybrid: `imtl_l` scales the losses, and `imtl_g` weighs the gradients of these."""

    def weigh(
        state: ImtlState, gram: Gram, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, ImtlState]:
        del key  # nothing is random
        scales, state = _scaled(state, needs_losses(losses, "imtl"), tx)
        return _impartial(gram * jnp.outer(scales, scales)) * scales, state

    return weigh_gradients(weigh, lambda: _start(tasks, tx), tasks=tasks)


def _start(tasks: int, tx: optax.GradientTransformation) -> ImtlState:
    zeros = jnp.zeros(tasks)
    return ImtlState(zeros, tx.init(zeros))


def _scaled(
    state: ImtlState, losses: PerTask, tx: optax.GradientTransformation
) -> tuple[PerTask, ImtlState]:
    scales = jnp.exp(state.log_scales)
    updates, tx_state = tx.update(scales * losses - 1, state.tx_state, state.log_scales)
    return scales, ImtlState(optax.apply_updates(state.log_scales, updates), tx_state)


def _impartial(gram: Gram) -> PerTask:
    cosines, lengths = correlations(gram)
    present = jnp.diagonal(gram) > 0
    values, vectors = jnp.linalg.eigh(jnp.where(jnp.outer(present, present), cosines, 0))
    # The pseudo-inverse leaves out eigenvalues that are zero up to rounding.
    keep = values > 10 * len(values) * float(np.finfo(gram.dtype).eps)
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
    weights = vectors @ (inverse * (vectors.T @ present.astype(gram.dtype))) / lengths
    total = jnp.sum(weights)
    none = jnp.abs(total) <= float(np.finfo(gram.dtype).eps) * jnp.sum(jnp.abs(weights))
    return jnp.where(none, 0, weights / jnp.where(none, 1, total))
