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
    """Impartial gradients: the sum, of weights that add up to 1, with equal projections on all.

    The weights (some may be negative) solve `gram @ weights = c * lengths`. Where gradients are
    linearly dependent, they are those of the least sum of squares; a zero gradient has no
    direction, and weight 0. Of opposite gradients the sum is zero.
    """
    return weigh_gram(_impartial)


class ImtlState(NamedTuple):
    """Logarithms of the scales of losses, and the state of their optimiser."""

    log_scales: PerTask
    tx_state: optax.OptState


def imtl_l(*, tasks: int, tx: optax.GradientTransformation) -> LossWeighting:
    """Impartial losses: weights `exp(s)`, where s goes down `sum(exp(s) * losses - s)` by `tx`.

    At the minimum all weighted losses are 1.
    """

    def weigh(state: ImtlState, losses: PerTask, key: Key | None) -> tuple[PerTask, ImtlState]:
        del key  # nothing is random
        return _scaled(state, losses, tx)

    return weigh_losses(weigh, lambda: _start(tasks, tx), tasks=tasks)


def imtl(*, tasks: int, tx: optax.GradientTransformation) -> TaskMethod:
    """The hybrid: `imtl_g` on the gradients of the losses that `imtl_l` has scaled."""

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
    # The pseudo-inverse: eigenvalues that are zero up to rounding are left out.
    keep = values > 10 * len(values) * float(np.finfo(gram.dtype).eps)
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
    weights = vectors @ (inverse * (vectors.T @ present.astype(gram.dtype))) / lengths
    total = jnp.sum(weights)
    none = jnp.abs(total) <= float(np.finfo(gram.dtype).eps) * jnp.sum(jnp.abs(weights))
    return jnp.where(none, 0, weights / jnp.where(none, 1, total))
