"""MetaOptNet with the ridge regression head, MetaOptNet-RR (Lee et al. 2019, arXiv:1904.03758).

The meta-parameters are those of an embedding, and a scale of the scores. To adapt to a task, the
learner solves a ridge regression of fixed strength on the features of the support set.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxdl.meta.ridge_learner import RidgeNumbers, check_strength, ridge_learner
from jaxdl.types import Embedding, LossFn, MetaLearner, Params, Scalar


class MetaOptNetParams(NamedTuple):
    """Parameters of the embedding, and the scale of the scores."""

    features: Params
    scale: Scalar


def metaoptnet(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: float = 50.0,
    scale: float = 1.0,
    inner_dropout: bool = False,
) -> MetaLearner:
    """MetaOptNet-RR on the embedding `features`, whose outputs are flattened to vectors.

    Predictions are `scale * features @ kernel`. The kernel minimises the sum of squared errors on
    the support set, plus `strength` times its squared norm. Targets are one-hot vectors. In
    contrast to `r2d2`, the strength is not learned, and there is no bias. There are no inner steps,
    so `adapt` returns the same for all `steps`.

    Floating-point targets `[n, ...]` are regressed as they are. Predictions then have their shape,
    and `ways` has no effect.

    A class without a support example that counts has the logit -inf, as in `protonet`.

    Deviations: the authors' code solves a quadratic program, whose linear term doubles the scores.
    Here the system is solved by Cholesky, and the scale makes up for the factor 2. The paper trains
    with label smoothing 0.1: see `jaxdl.cross_entropy`. Its other head, an SVM, is not here.

    Args:
        strength: Strength of the ridge penalty.
        scale: Scale of the scores at the start of training.
        inner_dropout: Dropout in the embedding of the support set, too.

    Raises:
        InputError: if `strength` is not above 0.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.metaoptnet(jaxdl.mlp((16,)), jaxdl.cross_entropy, ways=5)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> adapted.head.kernel.shape, jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    ((16, 5), (7, 5))
    """
    check_strength(strength)

    def start(features: Params) -> MetaOptNetParams:
        return MetaOptNetParams(features, jnp.full((), scale, float))

    def numbers(params: MetaOptNetParams) -> RidgeNumbers:
        return RidgeNumbers(strength, params.scale, 0.0, params.scale)

    return ridge_learner(
        features,
        loss,
        ways=ways,
        start=start,
        numbers=numbers,
        bias=False,
        inner_dropout=inner_dropout,
    )
