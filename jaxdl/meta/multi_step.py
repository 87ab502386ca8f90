"""The query loss after every inner step: the multi-step loss of MAML++ (arXiv:1810.09502)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.grads import of_loss
from jaxdl.meta.base import Ask
from jaxdl.meta.queries import query_loss
from jaxdl.types import (
    Array,
    Batch,
    Count,
    Episode,
    GradFn,
    Key,
    LossFn,
    Metrics,
    Params,
    PyTree,
    Scalar,
)

LEAST = 0.03
"""The least weight of a step, as a share of its first one. The paper's code has this number, and
does not read the one in its configurations."""

Visit = Callable[[Params], PyTree]
"""Called with the adapted parameters after an inner step."""

Walk = Callable[[Key, Params, Batch, Visit | None], tuple[Params, PyTree]]
"""`(key, params, support, visit)`: what it adapts, and what `visit` gave `[steps, ...]`."""


def multi_step_weights(step: Any, steps: int, until: int) -> Float[Array, " steps"]:
    """How much the query loss after each of `steps` inner steps counts. The sum is 1.

    At the outer step 0 all count the same. The weights fall linearly to 0 at the outer step
    `until`, but not below a least weight, and the last one takes the rest. From `until` on, the
    last loss counts alone. The paper's code changes the weights once an epoch, and here they change
    at each step.

    >>> [multi_step_weights(step, 4, until=100).tolist() for step in (0, 50, 100)]
    [[0.25, 0.25, 0.25, 0.25], [0.125, 0.125, 0.125, 0.625], [0.0, 0.0, 0.0, 1.0]]
    """
    early = jnp.where(step < until, jnp.maximum(1 - step / until, LEAST) / steps, 0.0)
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)


def through_every_step(
    walk: Walk, ask: Ask, loss: LossFn, weights: Callable[[Any], Array] | None
) -> GradFn:
    """The gradient of the weighted query losses after all inner steps.

    Metrics are those after the last step. Queries have the same dropout after each step.

    Args:
        weights: of the inner steps `[steps]`, by the outer step. None: the last loss counts alone,
            and no other is computed, as in `through_adaptation`.
    """

    def weighted(
        params: Params, key: Key, episode: Episode, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        adapt_key, predict_key = jax.random.split(key)
        support = episode.support

        def visit(adapted: Params) -> tuple[Scalar, Metrics]:
            return query_loss(partial(ask, adapted, support, key=predict_key), loss, episode)

        if weights is None:
            return visit(walk(adapt_key, params, support, None)[0])
        _, (losses, metrics) = walk(adapt_key, params, support, visit)
        return jnp.dot(weights(step), losses), jax.tree.map(lambda leaf: leaf[-1], metrics)

    return of_loss(weighted)
