"""Residual nets (He et al. 2016, https://arxiv.org/abs/1512.03385), as torchvision builds them.

A bottleneck block halves the image in its 3x3 convolution ("v1.5"). Modules are named after the
entries of torchvision's state dicts: `layer1_0/conv1` for `layer1.0.conv1`. So
`jaxdl.models.torch_weights` needs no table of names.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.layers.pooling import global_avg_pool, max_pool
from jaxdl.models.linen import check_images, stateful
from jaxdl.types import Array, NormMode, StatefulModel

Stem = Literal["cifar", "imagenet"]

# He et al. 2015, https://arxiv.org/abs/1502.01852, by fan-out, as in torchvision.
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_head_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_conv = partial(Conv, use_bias=False, kernel_init=_he_normal)


class Block(nn.Module):
    """Two 3x3 convolutions, or with `bottleneck` 1x1, 3x3, 1x1, added to the input.

    If the shape changes, a 1x1 convolution projects the input.
    """

    features: int
    strides: int
    bottleneck: bool
    norm: Callable[..., RunningBatchNorm]
    zero_init: bool
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        """Maps `[n, h, w, c]` to `[n, h / strides, w / strides, features]`; bottleneck: times 4."""
        out = 4 * self.features if self.bottleneck else self.features
        # (features, kernel, strides) of the convolutions in order.
        plan = (
            [(self.features, 1, 1), (self.features, 3, self.strides), (out, 1, 1)]
            if self.bottleneck
            else [(self.features, 3, self.strides), (out, 3, 1)]
        )
        y = x
        for i, (features, kernel, strides) in enumerate(plan, start=1):
            last = i == len(plan)
            y = _conv(features, kernel, strides, kernel // 2, dtype=self.dtype, name=f"conv{i}")(y)
            scale = nn.initializers.zeros if last and self.zero_init else nn.initializers.ones
            y = self.norm(scale_init=scale, name=f"bn{i}")(y, mode)
            y = y if last else nn.relu(y)
        if self.strides > 1 or x.shape[-1] != out:
            x = _conv(out, 1, self.strides, 0, dtype=self.dtype, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x, mode)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, four stages of blocks, the mean over space, a dense head; see `resnet`."""

    classes: int | None
    depths: Sequence[int]
    bottleneck: bool
    stem: Stem
    width: int
    norm: Callable[..., RunningBatchNorm]
    zero_init: bool
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        check_images(x, "resnet")
        kernel, strides = (3, 1) if self.stem == "cifar" else (7, 2)
        x = _conv(self.width, kernel, strides, kernel // 2, dtype=self.dtype, name="conv1")(x)
        x = self.norm(name="bn1")(x, mode)
        if self.stem == "imagenet":
            # relu commutes with the pool; after the pool, it costs a quarter.
            x = max_pool(x, 3, strides=2, padding=1)
        x = nn.relu(x)
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                x = Block(
                    self.width * 2**stage,
                    2 if stage > 0 and i == 0 else 1,
                    self.bottleneck,
                    self.norm,
                    self.zero_init,
                    self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x, mode)
        x = global_avg_pool(x)
        if self.classes:
            x = Dense(self.classes, dtype=self.dtype, kernel_init=_head_init, name="fc")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def resnet(
    classes: int | None,
    depths: Sequence[int],
    *,
    stem: Stem,
    bottleneck: bool = False,
    width: int = 64,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
    zero_init: bool = False,
    dtype: DTypeLike | None = None,
) -> StatefulModel:
    """A net from floating-point images `[n, h, w, channels]` to float32 logits `[n, classes]`.

    Args:
        classes: logits per image; 0 or None: no head, `[n, channels of the last stage]` features.
        depths: number of blocks per stage.
        stem: "cifar": a 3x3 convolution, for images of about 32 pixels. "imagenet": a 7x7
            convolution with stride 2 and a 3x3 max-pool with stride 2, for about 224 pixels.
        bottleneck: blocks of 1x1, 3x3, 1x1 convolutions, whose output is four times as wide.
        width: channels of the first stage; each further stage doubles them.
        momentum: the part of the running averages that a step keeps; PyTorch's 0.1 is 0.9 here.
        epsilon: added to variances.
        axis_name: the pmap axis over which batch norm averages its moments.
        zero_init: start the last scale of each block at 0 and not 1, so that blocks begin as
            identities (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
        dtype: of convolutions and head, say `jnp.bfloat16`; None: that of the images. Parameters,
            statistics and the arithmetic of batch norm stay float32.

    Raises:
        InputError: for an unknown stem or numbers out of range; at init and apply, for integers.
    """
    if stem not in get_args(Stem):
        raise InputError(f"the stem is 'cifar' or 'imagenet', not {stem!r}. Choose one of them")
    if (classes is not None and classes < 0) or width < 1 or not depths or min(depths) < 1:
        raise InputError(
            f"a resnet cannot have classes={classes}, width={width}, depths={depths}. Give"
            " classes >= 0, width >= 1 and depths >= 1"
        )
    if not 0 <= momentum < 1:
        raise InputError(
            f"momentum={momentum} is out of range. Choose the part of an average that a step keeps,"
            " in [0, 1)"
        )
    norm = partial(RunningBatchNorm, momentum, epsilon, axis_name=axis_name)
    return stateful(ResNet(classes, tuple(depths), bottleneck, stem, width, norm, zero_init, dtype))


def resnet18(classes: int | None, *, stem: Stem, **options: Any) -> StatefulModel:
    """`resnet` with stages of 2, 2, 2 and 2 blocks: 512 features.

    Args:
        classes: logits per image; 0 or None: no head.
        stem: "cifar" for images of about 32 pixels, "imagenet" for about 224.
        options: other arguments of `jaxdl.models.resnet.resnet`: width, momentum, epsilon,
            axis_name, zero_init, dtype.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.resnet18(1000, stem="imagenet"), jnp.zeros((1, 224, 224, 3))
    >>> params, stats = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # as many as torchvision's
    11689512

    Raises:
        InputError: as `resnet`.
    """
    return resnet(classes, (2, 2, 2, 2), stem=stem, **options)


def resnet34(classes: int | None, *, stem: Stem, **options: Any) -> StatefulModel:
    """`resnet` with stages of 3, 4, 6 and 3 blocks: 512 features."""
    return resnet(classes, (3, 4, 6, 3), stem=stem, **options)


def resnet50(classes: int | None, *, stem: Stem, **options: Any) -> StatefulModel:
    """`resnet` with stages of 3, 4, 6 and 3 bottleneck blocks: 2048 features."""
    return resnet(classes, (3, 4, 6, 3), stem=stem, bottleneck=True, **options)
