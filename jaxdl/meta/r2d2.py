"""R2-D2, ridge regression as differentiable learner (Bertinetto et al. 2019, arXiv:1805.08136).

The meta-parameters are those of an embedding, the strength of the ridge penalty, and a scale and an
offset of the scores. To adapt to a task, the learner solves a ridge regression on the features of
the support set, in closed form. The meta-gradient passes through the solution.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.head import flat_features
from jaxdl.meta.ridge import RidgeHead, ridge_head, ridge_scores
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Params,
    PyTree,
    Scalar,
    Weight,
)


class R2D2Params(NamedTuple):
    """Parameters of the embedding, and the three numbers of the head."""

    features: Params
    log_strength: Scalar
    scale: Scalar
    offset: Scalar


class R2D2Adapted(NamedTuple):
    """The meta-parameters, and the head of the task. Its last row is the bias."""

    params: R2D2Params
    head: RidgeHead


def r2d2(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: float = 1.0,
    scale: float = 10.0,
    inner_dropout: bool = False,
) -> MetaLearner:
    """R2-D2 on the embedding `features`, whose outputs are flattened to vectors.

    Predictions are `scale * (features @ kernel + bias) + offset`. Kernel and bias minimise the sum
    of squared errors on the support set, plus `strength` times their squared norm. Targets are
    one-hot vectors. There are no inner steps, so `adapt` returns the same for all `steps`.

    Floating-point targets `[n, ...]` are regressed as they are. Predictions then have their shape,
    and `ways` has no effect. Choose `scale=1.0`.

    A class without a support example that counts has the logit -inf, as in `protonet`.

    Deviations: the logarithm of the strength is learned, so that it stays positive. The sum of
    errors is that of the paper's equation 4; the authors' code divides it by the number of
    examples. The bias, and its penalty, are those of the code. In a softmax the offset has no
    effect; it is for other losses.

    Args:
        strength: Strength of the ridge penalty at the start of training.
        scale: Scale of the scores at the start of training.
        inner_dropout: Dropout in the embedding of the support set, too.

    Raises:
        InputError: if `strength` is not above 0.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.r2d2(jaxdl.mlp((16,)), jaxdl.cross_entropy, ways=5)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> adapted.head.kernel.shape, jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    ((17, 5), (7, 5))
    """
    check_model(features)
    if not strength > 0:
        raise InputError(f"`strength={strength}` makes no ridge regression. Give a number above 0")

    def init(key: Key, x: PyTree) -> R2D2Params:
        numbers = jnp.log(jnp.full((), strength, float)), jnp.full((), scale, float), jnp.zeros(())
        return R2D2Params(features.init(key, x), *numbers)

    def embed(
        params: Params, x: PyTree, key: Key | None, weight: Weight | None
    ) -> Float[Array, "n width"]:
        hidden = flat_features(features, params, x, key=key, weight=weight)
        return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)

    def adapt(
        key: Key, params: R2D2Params, support: Batch, steps: int | None = None
    ) -> R2D2Adapted:
        del steps  # a closed form needs no steps
        x, weight = without_void(support.x, support.weight), support.weight
        hidden = embed(params.features, x, key if inner_dropout else None, weight)
        strength = jnp.exp(params.log_strength)
        return R2D2Adapted(params, ridge_head(hidden, support, strength, ways=ways))

    def predict(
        adapted: R2D2Adapted, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Array:
        hidden = embed(adapted.params.features, x, key, weight)
        return ridge_scores(adapted.head, hidden, adapted.params.scale, adapted.params.offset)

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))
