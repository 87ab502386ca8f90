"""NP, the neural process with a latent variable (Garnelo et al. 2018, arXiv:1807.01622).

The name `lnp` is that of the latent variable, because `np` is NumPy's.

As CNP, but a part of the code of a task is a random vector. Each sample of it is a whole function,
so predictions at two queries depend on each other.
"""

from jaxdl.meta.latent_process import latent
from jaxdl.models.process_paths import process_paths
from jaxdl.types import Embedding, LossFn, MetaLearner


def lnp(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 128,
    samples: int = 50,
    least_scale: float = 0.1,
) -> MetaLearner:
    """A neural process: a `Normal` of `ways` numbers for each of `samples` functions.

    The net is that of the benchmark of TNP (arXiv:2207.04179), with two encoders. The loss is the
    paper's bound with one sample. The benchmark takes the importance-weighted one with 4.

    Predictions do not depend on the order of the support set. Queries share the samples, and see
    nothing else of each other. A support example of weight 0 counts for nothing, and one of weight
    2 twice. `adapt` draws the samples by its key.

    Args:
        width: Width of all dense layers and of the latent variable.
        samples: Functions that a prediction draws.
        least_scale: Least standard deviation of a prediction.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.lnp(jaxdl.mlp((8,)), jaxdl.gaussian_nll, ways=1, width=8)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1, 50)
    """
    net = process_paths(2 * ways, width=width, latent=True)
    return latent(features, net, loss, ways=ways, least_scale=least_scale, samples=samples)
