"""The net of ConvCNP in 1-D: from points to a grid, convolutions, and from the grid to inputs."""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.models.layers.dense import Dense
from jaxdl.models.process import Points, ProcessNet, Rows, process_net
from jaxdl.types import Array

TAPS = 5
"""The width of each convolution in grid points."""


class OnGrid(nn.Module):
    """A set convolution to the grid, residual convolutions, and a set convolution from the grid."""

    out: int
    width: int
    layers: int
    reach: float
    density: int

    def setup(self) -> None:
        """The layers."""
        start = nn.initializers.constant(math.log(2 / self.density))
        self.into, self.back = (self.param(name, start, ()) for name in ("into", "back"))
        self.first, self.last = Dense(self.width), Dense(self.out)
        self.blocks = [Dense(self.width) for _ in range(self.layers)]

    def near(self, x: Float[Array, "n one"], log_length: Float[Array, ""]) -> Rows:
        """The weight of each grid point for each input, `[n, grid]`."""
        count = 1 + math.ceil(2 * self.reach * self.density)
        grid = np.linspace(-self.reach, self.reach, count, dtype=np.float32)
        return jnp.exp(-jnp.square((x - grid[None]) / jnp.exp(log_length)) / 2)

    def encode(self, points: Points) -> Rows:
        """The features `[grid, width]` of a set of points."""
        near = self.near(points.x, self.into) * points.weight[:, None]
        density = jnp.sum(near, axis=0)[:, None]
        rows = self.first(jnp.concatenate([density, near.T @ points.y / (density + 1e-5)], axis=1))
        for block in self.blocks:
            around = jnp.pad(nn.relu(rows), ((TAPS // 2, TAPS // 2), (0, 0)))
            shifted = [around[shift : shift + len(rows)] for shift in range(TAPS)]
            rows = rows + block(jnp.concatenate(shifted, axis=1))
        return nn.relu(rows)

    def decode(self, code: Rows, x: Rows) -> Rows:
        """An answer per input."""
        return self.last(self.near(x, self.back) @ code)


def process_conv(
    out: int, *, width: int = 64, layers: int = 6, reach: float = 2.5, density: int = 16
) -> ProcessNet:
    """The net of ConvCNP, to answers `[m, out]` (Gordon et al. 2020, arXiv:1910.13556).

    Inputs have one feature. A point of weight 2 is as the point twice. If all points and inputs
    move by a whole number of grid points, the answers are the same, up to the ends of the grid.

    Args:
        width: channels of the convolutions, each of 5 grid points.
        layers: how many convolutions there are.
        reach: the grid goes from minus this to this. Answers outside have no meaning.
        density: grid points per unit.

    Raises:
        InputError: for a number that is not positive; at `init`, for inputs of more features.

    >>> import jax, jax.numpy as jnp
    >>> net, points = process_conv(2, width=4, layers=1), Points(*jnp.ones((2, 5, 1)), jnp.ones(5))
    >>> params = jax.jit(net.init)(jax.random.key(0), points)
    >>> net.decode(params, net.encode(params, points), jnp.zeros((3, 1))).shape
    (3, 2)
    """
    if min(out, width, density) < 1 or layers < 0 or not 0 < reach < math.inf:
        raise InputError(
            f"ConvCNP cannot have {out=}, {width=}, {layers=}, {reach=} and {density=}. Give"
            " positive numbers"
        )
    net = process_net(OnGrid(out, width, layers, reach, density))

    def init(key: Array, points: Points) -> Array:
        if points.x.shape[1] != 1:
            raise InputError(
                f"ConvCNP takes inputs of one feature, not {points.x.shape[1]}. Choose another"
                " learner, or features of one number"
            )
        return net.init(key, points)

    return net._replace(init=init)
