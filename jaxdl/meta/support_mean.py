"""The mean of the support targets: the baseline that a learner of regression must beat."""

import jax.numpy as jnp

from jaxdl.grads import leading_axis
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.types import Array, Batch, Key, LossFn, MetaLearner, Params, PyTree, Weight


def support_mean(loss: LossFn) -> MetaLearner:
    """Predicts the weighted mean of the support targets for each query. Nothing is trained.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = support_mean(jaxdl.mean_squared_error)
    >>> y, weight = jnp.array([[1.0], [3.0], [9.0]]), jnp.array([1.0, 1.0, 0.0])
    >>> adapted = learner.adapt(jax.random.key(0), (), jaxdl.Batch(jnp.zeros((3, 2)), y, weight))
    >>> learner.predict(adapted, jnp.zeros((2, 2))).tolist()
    [[2.0], [2.0]]
    """

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Array:
        del key, params, steps
        if support.weight is None:
            return jnp.mean(support.y, axis=0)
        weight = support.weight / jnp.maximum(support.weight.sum(), 1e-12)
        return jnp.tensordot(weight, without_void(support.y, support.weight), axes=1)

    def predict(
        adapted: Array, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Array:
        del key, weight
        return jnp.broadcast_to(adapted, (leading_axis(x), *adapted.shape))

    grad = through_adaptation(adapt, predict, loss)
    return MetaLearner(lambda key, x: (), adapt, predict, grad)
