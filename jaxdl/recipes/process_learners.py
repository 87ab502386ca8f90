"""Neural processes as learners of regression: they train by likelihood, and predict their means."""

import functools
from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from jaxdl.losses import gaussian_nll
from jaxdl.types import Array, Embedding, LossFn, MetaLearner, PyTree, Weight


def of_means(process: Callable[..., MetaLearner]) -> Callable[..., MetaLearner]:
    """`process` as a learner whose predictions are numbers `[n, ways]`, for any loss of numbers.

    The given loss is that of tests. Training keeps the likelihood, because a mean alone says
    nothing of the scale. The mean of samples is the prediction of a process that draws them.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> learner = of_means(jaxdl.cnp)(jaxdl.mlp((8,)), jaxdl.mean_squared_error, ways=1, width=8)
    >>> x, key = jnp.ones((5, 1)), jax.random.key(0)
    >>> adapted = jax.jit(learner.adapt)(key, learner.init(key, x), jaxdl.Batch(x, x))
    >>> jax.jit(learner.predict)(adapted, x).shape
    (5, 1)
    """

    @functools.wraps(process)
    def make(features: Embedding, loss: LossFn, *, ways: int, **own: Any) -> MetaLearner:
        del loss  # the learner does not train by it
        learner = process(features, gaussian_nll, ways=ways, **own)

        def predict(
            adapted: PyTree, x: PyTree, *, key: Array | None = None, weight: Weight | None = None
        ) -> Float[Array, "n ways"]:
            mean = learner.predict(adapted, x, key=key, weight=weight).mean
            return mean if mean.ndim == 2 else mean.mean(axis=-1)

        return learner._replace(predict=predict)

    return make
