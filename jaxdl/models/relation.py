"""The relation module of relation networks (Sung et al. 2018, arXiv:1711.06025)."""

from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import BatchNorm
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import pure
from jaxdl.types import Array, Model


class Relation(nn.Module):
    """Two blocks, then two dense layers; see `relation`."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1] // 2
        for _ in range(2):
            if x.ndim == 4:
                # No bias, because the norm would subtract it again.
                x = Conv(channels, 3, use_bias=False, kernel_init=nn.initializers.he_normal())(x)
                x = BatchNorm("batch")(x)
                x = max_pool(x) if min(x.shape[1:3]) > 1 else x
            else:
                x = Dense(channels, kernel_init=nn.initializers.he_normal())(x)
            x = nn.relu(x)
        x = nn.relu(Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return Dense(1)(x)


def relation(hidden: int = 8) -> Model:
    """Scores of pairs `[n, 1]`, from the two features of each pair, side by side.

    Of maps `[n, height, width, 2 * channels]` it is the paper's module: two blocks of a 3x3
    convolution to `channels`, batch norm, relu, and a 2x2 pool where a map has two pixels a side;
    then a dense layer of `hidden` units, relu, and the score. The norm uses the statistics of the
    pairs at hand. Of vectors `[n, 2 * width]`, dense layers to `width` with relu take the place of
    the blocks, without norm. The paper's sigmoid is not part of it.

    >>> import jax, jax.numpy as jnp
    >>> module, pairs = relation(), jnp.zeros((6, 4, 4, 10))
    >>> params = jax.eval_shape(module.init, jax.random.key(0), pairs)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    752
    >>> 9 * 10 * 5 + 2 * 5 + 9 * 5 * 5 + 2 * 5 + (5 + 1) * 8 + 8 + 1  # 1x1 after both pools
    752

    Raises:
        InputError: if `hidden` is below 1.
    """
    if hidden < 1:
        raise InputError(f"a relation module cannot have {hidden=}. Give at least 1 unit")
    return pure(Relation(hidden))
