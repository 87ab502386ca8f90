"""DWA, dynamic weight average (Liu, Johns, Davison 2019, arXiv:1803.10704)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.multitask.combine import LossWeighting, PerTask, weigh_losses
from jaxdl.types import Count, Key


class DwaState(NamedTuple):
    """Steps taken, the losses summed in this period, and means of the two before it."""

    taken: Count
    total: PerTask
    last: PerTask
    before: PerTask


def dwa(*, tasks: int, every: int, temperature: float = 2.0) -> LossWeighting:
    """Weights `tasks * softmax(r / temperature)`, r the ratio of the last two periods' losses.

    What learns slowly is weighed more. A period is `every` steps (the paper's is an epoch, over
    which it averages the losses); weights are 1 for the first two. A loss that rises from exactly 0
    takes all of the weight.

    Raises:
        InputError: a period without steps, or a temperature that is not above 0.
    """
    if every < 1 or not temperature > 0:
        raise InputError(
            f"dwa needs every >= 1 and temperature > 0, not every={every} and {temperature}"
        )

    def init() -> DwaState:
        return DwaState(jnp.int32(0), jnp.zeros(tasks), jnp.ones(tasks), jnp.ones(tasks))

    def weigh(state: DwaState, losses: PerTask, key: Key | None) -> tuple[PerTask, DwaState]:
        del key  # nothing is random
        # After a loss of exactly zero no ratio is finite, and of infinities there is no softmax.
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
