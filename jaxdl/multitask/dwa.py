"""DWA, dynamic weight average (Liu, Johns, Davison 2019, arXiv:1803.10704)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.multitask.combine import LossWeighting, PerTask, weigh_losses
from jaxdl.types import Count, Key


class DwaState(NamedTuple):
    """Steps taken, the sum of losses in this period, and the means of the two periods before it."""

    taken: Count
    total: PerTask
    last: PerTask
    before: PerTask


def dwa(*, tasks: int, every: int, temperature: float = 2.0) -> LossWeighting:
    """Weights `tasks * softmax(r / temperature)`, r the ratio of the last two periods' losses.

    A task that learns slowly gets a larger weight. A period is `every` steps, and its loss is the
    mean over them. In the paper a period is an epoch. Weights are 1 in the first two periods. If a
    loss rises from exactly 0, its task gets all of the weight.

    Raises:
        InputError: if `every` is below 1, or `temperature` is not above 0.
    """
    if every < 1 or not temperature > 0:
        raise InputError(
            f"dwa needs every >= 1 and temperature > 0, not every={every} and {temperature}: choose"
            " the steps of an epoch and 2.0, as in the paper"
        )

    def init() -> DwaState:
        return DwaState(jnp.int32(0), jnp.zeros(tasks), jnp.ones(tasks), jnp.ones(tasks))

    def weigh(state: DwaState, losses: PerTask, key: Key | None) -> tuple[PerTask, DwaState]:
        del key  # nothing is random
        # The ratio to a loss of exactly zero is infinite, and the softmax of infinities is NaN.
        finite = np.finfo(state.before.dtype)
        ratios = state.last / jnp.maximum(state.before, float(finite.tiny))
        ratios = jnp.where(state.taken < 2 * every, 1, ratios)
        scores = jnp.minimum(ratios / temperature, float(finite.max))
        weights = tasks * jax.nn.softmax(scores)

        steps, total = state.taken + 1, state.total + losses
        ended = steps % every == 0
        return weights, DwaState(
            steps,
            jnp.where(ended, 0, total),
            jnp.where(ended, total / every, state.last),
            jnp.where(ended, state.last, state.before),
        )

    return weigh_losses(weigh, init, tasks=tasks)
