"""ANIL, almost no inner loop (Raghu, Raghu, Bengio, Vinyals 2020, arXiv:1909.09157).

It is MAML whose inner steps adapt the head alone. The features of a task's examples are computed
once, and the inner steps are cheap. The outer loss trains features and head, through these steps.
"""

import optax
from jaxtyping import Float

from jaxdl.grads import objective
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.estimators import Estimator, first_order
from jaxdl.meta.head import Headed, flat_features, with_head
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.meta.probe.verdict import check
from jaxdl.types import Array, Batch, Embedding, Key, LossFn, MetaLearner, Model, PyTree, Weight

IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
"""The net of a head that sees features."""


def anil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """ANIL with `steps` inner steps of `tx` on a linear head with `ways` outputs.

    `params` and `adapted` are a `Headed`: the parameters of the features, and the head. The rest is
    as in `maml`: the loss, the estimator, what is told of `tx`, and tasks with fewer classes.

    Args:
        ways: outputs of the head.
        inner_dropout: Dropout in the features of the support set. The masks are drawn once, because
            the features are computed once.

    Raises:
        InputError: as `maml`.

    Warns:
        InnerOptimiserWarning: as `maml`.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> learner = jaxdl.anil(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, ways=2, tx=optax.sgd(0.1), steps=5
    ... )
    >>> support = jaxdl.Batch(jnp.eye(4), jnp.array([0, 1, 0, 1]))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> same = jax.tree.map(jnp.array_equal, adapted, params)
    >>> all(jax.tree.leaves(same.features)), bool(same.kernel)
    (True, False)
    >>> learner.predict(adapted, support.x).shape
    (4, 2)
    """
    net = with_head(features, ways)
    inner_loss = objective(with_head(IDENTITY, ways), loss)
    check(tx, steps=steps, first_order=estimator is first_order)
    trained_steps = steps

    def adapt(key: Key, params: Headed, support: Batch, steps: int | None = None) -> Headed:
        masks = key if inner_dropout else None
        x, weight = without_void(support.x, support.weight), support.weight
        hidden = flat_features(features, params.features, x, key=masks, weight=weight)
        depth = trained_steps if steps is None else steps
        head, seen = params._replace(features=()), support._replace(x=hidden)
        adapted, _ = descend(inner_loss, head, tx, seen, steps=depth, estimator=estimator)
        return adapted._replace(features=params.features)

    def predict(
        adapted: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        return net.apply(adapted, x, key=key, weight=weight)

    return MetaLearner(net.init, adapt, predict, through_adaptation(adapt, predict, loss))
