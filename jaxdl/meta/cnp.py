"""CNP, the conditional neural process (Garnelo et al. 2018, arXiv:1807.01613).

A net encodes each support point, and the mean of the codes stands for the task. A second net
predicts mean and scale at an input from this code. All learning in a task is one forward pass.
"""

from jaxdl.meta.neural_process import conditional
from jaxdl.models.process_paths import process_paths
from jaxdl.types import Embedding, LossFn, MetaLearner


def cnp(
    features: Embedding, loss: LossFn, *, ways: int, width: int = 128, least_scale: float = 0.1
) -> MetaLearner:
    """A conditional neural process that predicts a `Normal` of `ways` numbers.

    The net is that of the benchmark of TNP (arXiv:2207.04179): two encoders side by side, of which
    the paper has one. The loss is that of support points and queries together, as in the paper.

    Predictions do not depend on the order of the support set, nor on other queries. A support
    example of weight 0 counts for nothing, and one of weight 2 twice.

    Args:
        width: Width of all dense layers.
        least_scale: Least standard deviation of a prediction.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.cnp(jaxdl.mlp((8,)), jaxdl.gaussian_nll, ways=1, width=8)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1)
    """
    net = process_paths(2 * ways, width=width)
    return conditional(features, net, loss, ways=ways, least_scale=least_scale)
