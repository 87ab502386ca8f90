"""ResNet-12, the larger net of few-shot learning, with and without running averages.

It follows MetaOptNet (Lee et al. 2019, https://arxiv.org/abs/1904.03758), after TADAM (Oreshkin et
al. 2018, https://arxiv.org/abs/1805.10123). It has four blocks of three 3x3 convolutions with leaky
relu. Each block halves the image. The features are a mean over space.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import BatchNorm, Mode, RunningBatchNorm
from jaxdl.models.layers.pooling import global_avg_pool, max_pool
from jaxdl.models.linen import check_images, pure, stateful
from jaxdl.types import Array, Key, Model, NormMode, StatefulModel

WIDTHS = (64, 160, 320, 640)

_leaky_relu = partial(nn.leaky_relu, negative_slope=0.1)
# He et al. 2015 for a leaky relu of this slope, by fan-out, as in MetaOptNet.
_kernel_init = nn.initializers.variance_scaling(2 / (1 + 0.1**2), "fan_out", "normal")
_conv = partial(Conv, use_bias=False, kernel_init=_kernel_init)


class ResNet12(nn.Module):
    """Blocks, the mean over space and a dense head; see the constructors."""

    classes: int | None
    widths: Sequence[int]
    norm: Callable[[], nn.Module]
    dropout: float
    block_size: int
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array, mode: NormMode = "train") -> Array:
        check_images(x, "resnet12", least=2 ** len(self.widths))
        for i, features in enumerate(self.widths):
            y = x
            for part in range(3):
                y = self._normalised(_conv(features, 3, dtype=self.dtype)(y), mode)
                y = _leaky_relu(y) if part < 2 else y
            x = self._normalised(_conv(features, 1, dtype=self.dtype)(x), mode)
            # leaky relu commutes with the pool; after the pool, it costs a quarter.
            x = _leaky_relu(max_pool(x + y))
            # As published, only the last two blocks, whose maps are small, drop whole squares.
            size = self.block_size if i >= len(self.widths) - 2 else 1
            if self.dropout and self.has_rng("dropout"):
                x = drop_block(self.make_rng("dropout"), x, rate=self.dropout, size=size)
        x = global_avg_pool(x)
        if self.classes:
            x = Dense(self.classes, dtype=self.dtype)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _normalised(self, x: Array, mode: NormMode) -> Array:
        norm = self.norm()
        return norm(x, mode) if isinstance(norm, RunningBatchNorm) else norm(x)


def drop_block(key: Key, x: Array, *, rate: float, size: int) -> Array:
    """DropBlock (Ghiasi et al. 2018, https://arxiv.org/abs/1810.12890): sets squares to zero.

    Centres are drawn where a whole square fits. About `rate` of all values become zero. The other
    values are scaled up by the inverse of the part that stays. Size 1 is dropout.

    Args:
        x: `[n, h, w, channels]`; each example and channel draws its own squares.
        rate: in `[0, 1)`.
        size: side of the squares.

    Raises:
        InputError: if a square is larger than the image.
    """
    n, h, w, c = x.shape
    if size > min(h, w):
        raise InputError(
            f"blocks of {size}x{size} do not fit into a map of {h}x{w}. Choose a smaller block_size"
        )
    centres = (n, h - size + 1, w - size + 1, c)
    gamma = rate / size**2 * (h * w) / (centres[1] * centres[2])
    gone = jax.random.bernoulli(key, min(gamma, 1.0), centres).astype(x.dtype)
    # A value is dropped if any of the `size` x `size` squares that cover it is dropped.
    kept = 1 - max_pool(gone, size, strides=1, padding=size - 1)
    scale = kept.size / jnp.maximum(jnp.sum(kept, dtype=jnp.float32), 1)
    return x * kept * scale.astype(x.dtype)


def resnet12(
    classes: int | None,
    *,
    widths: Sequence[int] = WIDTHS,
    dropout: float = 0.0,
    block_size: int = 1,
    momentum: float = 0.9,
    axis_name: str | None = None,
    dtype: DTypeLike | None = None,
) -> StatefulModel:
    """A net from floating-point images `[n, h, w, channels]` to float32 logits `[n, classes]`.

    Args:
        classes: logits per image; 0 or None: no head, `[n, widths[-1]]` features.
        widths: channels of the blocks; images need at least `2 ** len(widths)` pixels per side.
        dropout: rate in `[0, 1)` after each block (MetaOptNet: 0.1), active with a key.
        block_size: side of the squares that are dropped after the last two blocks (5 for images of
            84 pixels, 2 for images of 32); 1 is plain dropout.
        momentum, axis_name: of the batch norm, as in `jaxdl.models.resnet.resnet18`.
        dtype: of the convolutions and the head, say `jnp.bfloat16`.

    >>> import functools, jaxdl, jax, jax.numpy as jnp
    >>> embedding, x = jaxdl.resnet12(classes=None), jnp.zeros((2, 84, 84, 3))
    >>> params, stats = jax.eval_shape(embedding.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # as many as MetaOptNet's
    12424320
    >>> evaluate = functools.partial(embedding.apply, mode="eval")
    >>> features, _ = jax.eval_shape(evaluate, params, stats, x)
    >>> features.shape
    (2, 640)

    Raises:
        InputError: for numbers out of range; at init and apply, for integers, small images, or
            squares that do not fit.
    """
    if not 0 <= momentum < 1:
        raise InputError(
            f"momentum={momentum} is out of range. Choose the part of an average that a step keeps,"
            " in [0, 1)"
        )
    norm = partial(RunningBatchNorm, momentum, axis_name=axis_name)
    return stateful(_net(classes, widths, norm, dropout, block_size, dtype))


def resnet12_batch(
    classes: int | None,
    norm: Mode = "batch",
    *,
    widths: Sequence[int] = WIDTHS,
    dropout: float = 0.0,
    block_size: int = 1,
    dtype: DTypeLike | None = None,
) -> Model:
    """`resnet12` without running averages, a plain `Model`, for learners like MAML.

    `norm` chooses the statistics: "batch" (transductive) or "example", as in
    `jaxdl.models.layers.norm.BatchNorm`.
    """
    return pure(_net(classes, widths, partial(BatchNorm, norm), dropout, block_size, dtype))


def _net(
    classes: int | None,
    widths: Sequence[int],
    norm: Callable[[], nn.Module],
    dropout: float,
    block_size: int,
    dtype: DTypeLike | None,
) -> ResNet12:
    if (classes is not None and classes < 0) or len(widths) < 2 or min(widths) < 1:
        raise InputError(
            f"resnet12 cannot have classes={classes}, widths={widths}. Give classes >= 0 and at"
            " least two widths >= 1"
        )
    if not 0 <= dropout < 1 or block_size < 1:
        raise InputError(
            f"resnet12 cannot have dropout={dropout} and block_size={block_size}. Give a dropout"
            " rate in [0, 1) and block_size >= 1"
        )
    return ResNet12(classes, tuple(widths), norm, dropout, block_size, dtype)
