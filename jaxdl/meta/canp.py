"""CANP, the conditional attentive neural process: ANP (arXiv:1901.05761) without a latent variable.

Each query looks up the support points by attention to their inputs (Kim et al. 2019). A second
path encodes the whole support set as one vector.
"""

from jaxdl.meta.neural_process import conditional
from jaxdl.models.process_paths import process_paths
from jaxdl.types import Embedding, LossFn, MetaLearner


def canp(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 128,
    heads: int = 8,
    least_scale: float = 0.1,
) -> MetaLearner:
    """A conditional attentive neural process that predicts a `Normal` of `ways` numbers.

    The net is that of the benchmark of TNP (arXiv:2207.04179): self-attention in both paths,
    cross-attention in the first. The loss is that of support points and queries together.

    Predictions do not depend on the order of the support set, nor on other queries. A support
    example of weight 0 counts for nothing, and one of weight 2 twice.

    Args:
        width: Width of all dense layers, a multiple of the heads.
        heads: Heads of attention.
        least_scale: Least standard deviation of a prediction.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.canp(jaxdl.mlp((8,)), jaxdl.gaussian_nll, ways=1, width=8, heads=2)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1)
    """
    net = process_paths(2 * ways, width=width, heads=heads)
    return conditional(features, net, loss, ways=ways, least_scale=least_scale)
