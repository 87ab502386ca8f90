"""TNP-D, the transformer neural process (Nguyen, Grover 2022, arXiv:2207.04179).

The D is for a diagonal covariance: queries are predicted apart. Support points are tokens that
attend to each other. A query is a token without a target that attends to the support points.
"""

from jaxdl.meta.neural_process import conditional
from jaxdl.models.process_transformer import process_transformer
from jaxdl.types import Embedding, LossFn, MetaLearner


def tnp_d(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 64,
    heads: int = 4,
    layers: int = 6,
    least_scale: float = 0.0,
) -> MetaLearner:
    """A transformer neural process that predicts a `Normal` of `ways` numbers.

    The defaults are those of the paper, whose loss is that of the queries alone. `pfn` is the same
    idea for classes, and for numbers without a scale.

    Predictions do not depend on the order of the support set, nor on other queries. A support
    example of weight 0 counts for nothing, and one of weight 2 twice.

    Args:
        width: Width of tokens, a multiple of the heads.
        heads: Heads of attention.
        layers: Layers of attention.
        least_scale: Least standard deviation of a prediction. 0: the scale is an exponential.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.tnp_d(jaxdl.mlp((8,)), jaxdl.gaussian_nll, ways=1, width=8, layers=1)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1)
    """
    net = process_transformer(2 * ways, width=width, heads=heads, layers=layers)
    return conditional(features, net, loss, whole=False, ways=ways, least_scale=least_scale)
