"""ANP, the attentive neural process (Kim et al. 2019, arXiv:1901.05761).

As NP, but each query looks up the support points by attention to their inputs. A random vector
stands for what the support set leaves open, so that each sample is a whole function.
"""

from jaxdl.meta.latent_process import latent
from jaxdl.models.process_paths import process_paths
from jaxdl.types import Embedding, LossFn, MetaLearner


def anp(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 128,
    heads: int = 8,
    samples: int = 50,
    least_scale: float = 0.1,
) -> MetaLearner:
    """An attentive neural process: a `Normal` of `ways` numbers for each of `samples` functions.

    The net is that of the benchmark of TNP (arXiv:2207.04179), with self-attention in both paths.
    The loss is the paper's bound with one sample. The benchmark takes the importance-weighted one
    with 4.

    Predictions do not depend on the order of the support set. Queries share the samples, and see
    nothing else of each other. A support example of weight 0 counts for nothing, and one of weight
    2 twice. `adapt` draws the samples by its key.

    Args:
        width: Width of all dense layers and of the latent variable, a multiple of the heads.
        heads: Heads of attention.
        samples: Functions that a prediction draws.
        least_scale: Least standard deviation of a prediction.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.anp(jaxdl.mlp((8,)), jaxdl.gaussian_nll, ways=1, width=8, heads=2)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1, 50)
    """
    net = process_paths(2 * ways, width=width, heads=heads, latent=True)
    return latent(features, net, loss, ways=ways, least_scale=least_scale, samples=samples)
