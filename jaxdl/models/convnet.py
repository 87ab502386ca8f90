"""A plain convolutional net: blocks of convolution, pooling, batch norm and ReLU, then a head."""

from collections.abc import Sequence

from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import check_images, stateful
from jaxdl.types import Array, NormMode, StatefulModel


class ConvNet(nn.Module):
    """See `convnet`."""

    classes: int
    channels: Sequence[int]
    dropout: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        check_images(x, "convnet", least=2 ** len(self.channels))
        for channels in self.channels:
            x = Conv(channels, 3, use_bias=False, kernel_init=nn.initializers.he_normal())(x)
            # The pool comes first, because then the norm and ReLU cost a quarter.
            x = nn.relu(RunningBatchNorm(axis_name=self.axis_name)(max_pool(x), mode))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return Dense(self.classes)(x)


def convnet(
    classes: int,
    channels: Sequence[int] = (16, 32, 64),
    *,
    dropout: float = 0.0,
    axis_name: str | None = None,
) -> StatefulModel:
    """A net from floating-point images `[n, h, w, c]` to logits `[n, classes]`.

    Every block is a 3x3 convolution, a 2x2 max-pool that halves the image, `RunningBatchNorm` and
    ReLU. The head is linear on the flattened last map.

    Args:
        classes: logits per image.
        channels: channels of each block.
        dropout: rate in `[0, 1)` before the head; active in the mode "train" with a key.
        axis_name: the device axis over which batch norm averages.

    >>> import functools, jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.convnet(classes=10), jnp.zeros((2, 32, 32, 3))
    >>> params, stats = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> params["Dense_0"]["kernel"].shape  # the last map is 4x4x64
    (1024, 10)
    >>> train = functools.partial(model.apply, mode="train")
    >>> logits, stats = jax.eval_shape(train, params, stats, x)
    >>> logits.shape
    (2, 10)

    Raises:
        InputError: for no classes, no channels, or a rate out of range; at init and apply, for
            integers, or images too small for the pools.
    """
    if classes < 1 or not channels or min(channels) < 1 or not 0 <= dropout < 1:
        raise InputError(
            f"convnet cannot have classes={classes}, channels={channels!r} and dropout={dropout}."
            " Give classes >= 1, the channels of each block, and a dropout rate in [0, 1)"
        )
    return stateful(ConvNet(classes, tuple(channels), dropout, axis_name))
