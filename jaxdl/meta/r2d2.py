"""R2-D2, ridge regression as differentiable learner (Bertinetto et al. 2019, arXiv:1805.08136).

The meta-parameters are those of an embedding, the strength of the ridge penalty, and a scale and an
offset of the scores. To adapt to a task, the learner solves a ridge regression on the features of
the support set, in closed form. The meta-gradient passes through the solution.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxdl.meta.ridge_learner import RidgeNumbers, check_strength, ridge_learner
from jaxdl.types import Embedding, LossFn, MetaLearner, Params, Scalar


class R2D2Params(NamedTuple):
    """Parameters of the embedding, and the three numbers of the head."""

    features: Params
    log_strength: Scalar
    scale: Scalar
    offset: Scalar


def r2d2(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: float = 1.0,
    scale: float | None = None,
    inner_dropout: bool = False,
) -> MetaLearner:
    """R2-D2 on the embedding `features`, whose outputs are flattened to vectors.

    Predictions are `scale * (features @ kernel + bias) + offset`. Kernel and bias minimise the sum
    of squared errors on the support set, plus `strength` times their squared norm. Targets are
    one-hot vectors. There are no inner steps, so `adapt` returns the same for all `steps`.

    Floating-point targets `[n, ...]` are regressed as they are. Predictions then have their shape,
    and `ways` has no effect.

    A class without a support example that counts has the logit -inf, as in `protonet`.

    Deviations: the logarithm of the strength is learned, so that it stays positive. The sum of
    errors is that of the paper's equation 4; the authors' code divides it by the number of
    examples. The bias, and its penalty, are those of the code. In a softmax the offset has no
    effect; it is for other losses.

    Args:
        strength: Strength of the ridge penalty at the start of training.
        scale: Scale of the predictions at the start of training. None: 10 for classes, 1 for
            numbers.
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
    check_strength(strength)

    def start(features: Params) -> R2D2Params:
        first = jnp.full((), 10.0 if scale is None else scale, float)
        return R2D2Params(features, jnp.log(jnp.full((), strength, float)), first, jnp.zeros(()))

    def numbers(params: R2D2Params) -> RidgeNumbers:
        of_numbers = params.scale / 10 if scale is None else params.scale
        return RidgeNumbers(jnp.exp(params.log_strength), params.scale, params.offset, of_numbers)

    return ridge_learner(
        features,
        loss,
        ways=ways,
        start=start,
        numbers=numbers,
        bias=True,
        inner_dropout=inner_dropout,
    )
