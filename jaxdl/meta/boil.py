"""BOIL, body only update in inner loop (Oh, Yoo, Kim, Yun 2021, arXiv:2008.08882).

It is MAML whose inner steps adapt the features alone. Because the head stays as it is, the features
must move to it. The outer loss trains features and head, through these steps.
"""

import optax
from jaxtyping import Float

from jaxdl.grads import objective
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.estimators import Estimator, first_order
from jaxdl.meta.head import Headed, with_head
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.meta.probe.verdict import check
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Params,
    PyTree,
    Scalar,
    Weight,
)


def boil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """BOIL with `steps` inner steps of `tx` on the features: `optax.sgd(0.5)` is the paper's.

    `params` and `adapted` are a `Headed`: the parameters of the features, and a linear head with
    `ways` outputs. The rest is as in `maml`: the loss, dropout, the estimator, and what is told of
    `tx`. A class that the support set lacks keeps its part of the head.

    Args:
        ways: outputs of the head.

    Raises:
        InputError: as `maml`.

    Warns:
        InnerOptimiserWarning: as `maml`.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> learner = jaxdl.boil(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, ways=2, tx=optax.sgd(0.5), steps=1
    ... )
    >>> support = jaxdl.Batch(jnp.eye(4), jnp.array([0, 1, 0, 1]))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> bool(jnp.array_equal(adapted.kernel, params.kernel))
    True
    >>> learner.predict(adapted, support.x).shape
    (4, 2)
    """
    net = with_head(features, ways)
    value = objective(net, loss)
    check(tx, steps=steps, first_order=estimator is first_order)
    trained_steps = steps

    def inner_loss(
        body: Params, key: Key | None, head: Headed, support: Batch
    ) -> tuple[Scalar, Metrics]:
        return value(head._replace(features=body), key, support)

    def adapt(key: Key, params: Headed, support: Batch, steps: int | None = None) -> Headed:
        depth = trained_steps if steps is None else steps
        masks, head = key if inner_dropout else None, params._replace(features=())
        body, _ = descend(
            inner_loss,
            params.features,
            tx,
            head,
            support,
            steps=depth,
            key=masks,
            estimator=estimator,
        )
        return params._replace(features=body)

    def predict(
        adapted: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        return net.apply(adapted, x, key=key, weight=weight)

    return MetaLearner(net.init, adapt, predict, through_adaptation(adapt, predict, loss))
