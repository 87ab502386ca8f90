"""ConvCNP in 1-D, with convolutions for a shift of the task (Gordon et al. 2020, arXiv:1910.13556).

The support set becomes a function on a grid, a convolutional net transforms it, and a query reads
the grid around it. A task that moves along the axis gives predictions that move with it.
"""

from jaxdl.meta.neural_process import conditional
from jaxdl.models.process_conv import process_conv
from jaxdl.types import Embedding, LossFn, MetaLearner


def convcnp(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 64,
    layers: int = 6,
    reach: float = 2.5,
    density: int = 16,
    least_scale: float = 0.1,
) -> MetaLearner:
    """A convolutional conditional neural process that predicts a `Normal` of `ways` numbers.

    Inputs have one feature. Three things differ from the paper: the convolutions are residual, the
    grid has 16 points per unit and not 64, and its ends are fixed, so that a query does not see
    where the others are. The loss is that of support points and queries together.

    Predictions do not depend on the order of the support set, nor on other queries. A support
    example of weight 0 counts for nothing, and one of weight 2 twice.

    Args:
        width: Channels of the convolutions.
        layers: Convolutions, each over 5 grid points.
        reach: Inputs lie between minus this number and this number.
        density: Grid points per unit of the input.
        least_scale: Least standard deviation of a prediction.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.convcnp(jaxdl.mlp((1,)), jaxdl.gaussian_nll, ways=1, width=8, layers=1)
    >>> support = jaxdl.Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 1))).scale.shape
    (7, 1)
    """
    net = process_conv(2 * ways, width=width, layers=layers, reach=reach, density=density)
    return conditional(features, net, loss, ways=ways, least_scale=least_scale)
