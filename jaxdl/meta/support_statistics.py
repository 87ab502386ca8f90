"""Batch norm by the support set's statistics: MetaBN (Bronskill et al. 2020, arXiv:2003.03284).

MAML's batch norm normalises queries by the statistics of all queries (transductive). So its
accuracy depends on the number of queries in a batch, and it cannot predict for a single one. Here a
prediction does not depend on other queries (inductive).
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.grads import leading_axis
from jaxdl.losses import without_void
from jaxdl.meta.base import Ask, QueryGrad, through_adaptation
from jaxdl.types import (
    Batch,
    GradFn,
    Key,
    LossFn,
    MetaLearner,
    Params,
    PyTree,
    TransferLearner,
    Weight,
)

Learner = TypeVar("Learner", MetaLearner, TransferLearner)


class WithSupport(NamedTuple):
    """The result of the learner's own `adapt`, and the support set."""

    adapted: PyTree
    support: Batch


def by_support_statistics(learner: Learner, loss: LossFn | None = None) -> Learner:
    """The learner whose nets normalise queries by the support set's statistics (inductive).

    A prediction for a query does not depend on the number of other queries or on their values. To
    predict, the adapted net takes one batch of support examples and queries. The queries have
    weight 0, so every norm computes its statistics from the support set alone. Build the net with
    `norm="batch"`. Its norms must accept weights, as those of `jaxdl.models` do.

    Args:
        loss: the loss of queries, for the `grad` of a meta-learner that trains through its
            adaptation, or estimates such a gradient, as `es_maml` does. None keeps `learner.grad`:
            choose None for a `TransferLearner`, for a learner that is trained already, and for one
            with a gradient of its own, such as Reptile's.

    Raises:
        InputError: if a learner gets a loss whose `grad` is not that of a loss of queries.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> net, loss = jaxdl.mlp((8, 3), norm="batch"), jaxdl.cross_entropy
    >>> learner = jaxdl.by_support_statistics(
    ...     jaxdl.maml(net, loss, tx=optax.sgd(0.1), steps=1), loss
    ... )
    >>> x = jnp.linspace(-1, 1, 24).reshape(6, 4) ** 3
    >>> params = jax.jit(learner.init)(jax.random.key(0), x)
    >>> support = jaxdl.Batch(x, jnp.array([0, 1, 2, 0, 1, 2]))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> predict = jax.jit(learner.predict)
    >>> all_of_them, alone = predict(adapted, x), predict(adapted, x[:1])
    >>> bool(jnp.allclose(all_of_them[:1], alone, atol=1e-5))
    True
    """

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> WithSupport:
        return _with_support(learner.adapt(key, params, support, steps), support)

    def predict(
        adapted: WithSupport, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        del weight  # all queries have weight 0 in the statistics
        given, asked = leading_axis(adapted.support), leading_axis(x)
        weights = adapted.support.weight
        counted = jnp.ones(given) if weights is None else weights
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), adapted.support.x, x)
        weights = jnp.concatenate([counted, jnp.zeros(asked, counted.dtype)])
        found = learner.predict(adapted.adapted, both, key=key, weight=weights)
        return jax.tree.map(lambda leaf: leaf[given:], found)

    def ask(adapted: PyTree, support: Batch, x: PyTree, **options: Any) -> PyTree:
        return predict(_with_support(adapted, support), x, **options)

    inductive = learner._replace(adapt=adapt, predict=predict)
    if loss is None:
        return inductive
    if isinstance(learner, TransferLearner):
        raise InputError(
            "a TransferLearner trains on labelled examples and not through its adaptation: leave"
            " out `loss`"
        )
    if isinstance(learner.grad, QueryGrad) and learner.grad.asking is not None:
        grad = learner.grad.asking(ask, loss)
        return inductive._replace(grad=QueryGrad(grad, _once))
    if not isinstance(learner.grad, QueryGrad) or learner.grad.loss is None:
        raise InputError(
            "this learner's gradient is not that of a loss of queries after adaptation. Leave out"
            " `loss`, or make the gradient by jaxdl.through_adaptation"
        )
    return inductive._replace(grad=through_adaptation(adapt, predict, loss))


def _once(ask: Ask, loss: LossFn) -> GradFn:
    raise InputError(
        "this learner has the statistics of the support set already. Ask for them once"
    )


def _with_support(adapted: PyTree, support: Batch) -> WithSupport:
    x = without_void(support.x, support.weight)
    return WithSupport(adapted, support._replace(x=x))
