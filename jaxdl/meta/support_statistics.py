"""Batch norm by the support set's statistics: MetaBN (Bronskill et al. 2020, arXiv:2003.03284).

MAML's batch norm normalises queries by one another (transductive): its accuracy depends on how many
of them stand in a batch, and a single one cannot be asked at all. Here no query sees another.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.grads import leading_axis
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.types import Array, Batch, Key, LossFn, MetaLearner, Params


class WithSupport(NamedTuple):
    """What a learner made of the support set, and that set."""

    adapted: Any
    support: Batch


def by_support_statistics(learner: MetaLearner, loss: LossFn | None = None) -> MetaLearner:
    """The learner whose nets normalise queries by the support set's statistics (inductive).

    A prediction for a query does not depend on the other queries, be there 75 of them or one. To
    predict, the support set goes through the adapted net beside the queries, which have weight 0
    there, so that every norm takes its statistics from the support set alone. Nets need norms that
    take weights, as those of `jaxdl.models` do; the net itself is built with `norm="batch"`.

    Args:
        loss: of queries, for training through the adaptation; None keeps `learner.grad`, for
            learners that train on labelled batches.

        learner = by_support_statistics(maml(conv4_omniglot(5), cross_entropy, ...), cross_entropy)
    """

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> WithSupport:
        x = without_void(support.x, support.weight)
        return WithSupport(learner.adapt(key, params, support, steps), support._replace(x=x))

    def predict(
        adapted: WithSupport, x: Any, *, key: Key | None = None, weight: Array | None = None
    ) -> Any:
        del weight  # no query counts
        given, asked = leading_axis(adapted.support), leading_axis(x)
        weights = adapted.support.weight
        counted = jnp.ones(given) if weights is None else weights
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), adapted.support.x, x)
        weights = jnp.concatenate([counted, jnp.zeros(asked, counted.dtype)])
        found = learner.predict(adapted.adapted, both, key=key, weight=weights)
        return jax.tree.map(lambda leaf: leaf[given:], found)

    grad = learner.grad if loss is None else through_adaptation(adapt, predict, loss)
    return MetaLearner(learner.init, adapt, predict, grad)
