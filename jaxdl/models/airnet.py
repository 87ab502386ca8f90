"""The small fast net of the CIFAR-10 speed records, from Keller Jordan's airbench94.

https://arxiv.org/abs/2404.00498. The paper's code trains it to 94 % test accuracy on CIFAR-10 in
under four seconds on one A100. experiments/airbench.py has the recipe
(augmentation, optimiser, schedule). A training step of 1024 images of 32x32 needs 0.72 TFLOP of
convolutions (2 FLOP per multiply-add, 236 MFLOP per image forward); the 475 steps need 0.34 PFLOP.
The accuracy here is not yet measured, because this needs a GPU.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv, conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import check_images, stateful
from jaxdl.types import Array, Key, NormMode, Params, PyTree, StatefulModel

_torch_kernel: nn.initializers.Initializer = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform"
)
"""PyTorch's default: uniform in +-1 / sqrt(fan_in)."""


def whitening_kernel(images: Array, *, size: int = 2, epsilon: float = 5e-4) -> Array:
    """A kernel that makes patches of these images uncorrelated, with variance about 1.

    Its filters are the eigenvectors of the covariance of all `size` x `size` patches (about zero,
    because images are normalised), each divided by `sqrt(eigenvalue + epsilon)`. The largest
    eigenvalue is first. Then come the same filters with the other sign, because the activation
    after them keeps only one side.

    Args:
        images: normalised images `[n, height, width, channels]`; a few thousand are enough.

    Returns:
        `[size, size, channels, 2 * size * size * channels]`, float32.
    """
    n, height, width, channels = images.shape
    rows, columns = height - size + 1, width - size + 1
    images = images.astype(jnp.float32)
    patches = jnp.stack(
        [images[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)],
        axis=3,
    ).reshape(n * rows * columns, size * size * channels)
    covariance = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(covariance)
    scaled = (vectors / jnp.sqrt(values + epsilon).reshape(1, -1))[:, ::-1]
    return jnp.concatenate([scaled, -scaled], axis=1).reshape(size, size, channels, -1)


def partial_dirac(key: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Kernels `[k, k, in, out]` whose first `in` filters each pass one channel on unchanged.

    The other filters have PyTorch's default. With fewer filters than channels, all filters pass
    one channel on.
    """
    height, width, channels, features = shape
    same = min(channels, features)
    kernel = _torch_kernel(key, tuple(shape), dtype)
    passing = jnp.zeros((height, width, channels, same), dtype)
    passing = passing.at[height // 2, width // 2, jnp.arange(same), jnp.arange(same)].set(1)
    return jnp.concatenate([passing, kernel[..., same:]], axis=3)


class AirNet(nn.Module):
    """See `airnet`."""

    classes: int
    widths: Sequence[int]
    logit_scale: float
    momentum: float
    axis_name: str | None
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array, mode: NormMode) -> Array:
        check_images(x, "airnet", least=2 ** len(self.widths) + 1)
        # The kernel is a statistic of the first images, not a parameter: no gradient reaches it.
        kernel = self.variable("batch_stats", "whitening", whitening_kernel, x).value
        if self.is_initializing():
            x = x[:1]  # the rest of the net needs only shapes
        bias = self.param("whitening_bias", nn.initializers.zeros, kernel.shape[-1:])
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = nn.gelu(conv(x, kernel, padding="VALID") + bias.reshape(1, 1, 1, -1), approximate=False)
        for block, width in enumerate(self.widths, 1):
            x = self._layer(f"block{block}_1", x, width, mode, pool=True)
            x = self._layer(f"block{block}_2", x, width, mode, pool=False)
        x = jnp.max(x, axis=(1, 2))
        head = Dense(
            self.classes, use_bias=False, kernel_init=_torch_kernel, dtype=self.dtype, name="head"
        )
        return head(x).astype(jnp.promote_types(x.dtype, jnp.float32)) * self.logit_scale

    def _layer(self, name: str, x: Array, width: int, mode: NormMode, *, pool: bool) -> Array:
        x = Conv(
            width,
            3,
            use_bias=False,
            kernel_init=partial_dirac,
            dtype=self.dtype,
            name=f"{name}_conv",
        )(x)
        if pool:
            x = max_pool(x)
        norm = RunningBatchNorm(
            momentum=self.momentum,
            epsilon=1e-12,
            use_scale=False,
            axis_name=self.axis_name,
            name=f"{name}_norm",
        )
        return nn.gelu(norm(x, mode), approximate=False)


def airnet(
    classes: int,
    *,
    widths: Sequence[int] = (64, 256, 256),
    logit_scale: float = 1 / 9,
    momentum: float = 0.6,
    axis_name: str | None = None,
    dtype: DTypeLike | None = None,
) -> StatefulModel:
    """Normalised images `[n, h, w, channels]` to logits `[n, classes]` in float32.

    First comes a fixed 2x2 convolution that whitens patches, with a trained bias. Then comes one
    block per width: two 3x3 convolutions with batch norm (no scale) and GELU, and a max-pool after
    the first. Then come the maximum of each channel, and a linear head with scaled-down logits.

    `init(key, x)` computes the whitening from the patches of `x`: give it a few thousand normalised
    training images. The kernel is "whitening" in the statistics, where no gradient reaches it.

    Args:
        classes: logits per image.
        widths: channels of the blocks; each block halves the image.
        logit_scale: factor of the logits.
        momentum: of batch norm's running averages; it is low because training is short.
        axis_name: the axis of the devices that share a batch.
        dtype: of the computation, say `jnp.bfloat16`; parameters, statistics and batch norm stay
            float32.

    Raises:
        InputError: for no classes or widths; at init and apply, for integers or images too small.
    """
    if classes < 1 or not widths or min(widths) < 1:
        raise InputError(
            f"airnet cannot have classes={classes} and widths={tuple(widths)}. Give classes and"
            " widths of at least 1"
        )
    return stateful(AirNet(classes, tuple(widths), logit_scale, momentum, axis_name, dtype))


def with_views(model: StatefulModel) -> StatefulModel:
    """The model with test-time augmentation: "eval" averages six views of each image.

    The image and its mirror image have half of the weight. Both, moved by one pixel to the lower
    right and to the upper left with a reflected border, have the other half. "train" is unchanged.
    """

    def apply(
        params: Params,
        stats: PyTree,
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Array | None = None,
        mode: NormMode,
    ) -> tuple[Any, PyTree]:
        if mode == "train":
            return model.apply(params, stats, x, key=key, weight=weight, mode=mode)
        _, height, width, _ = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        moved = [padded[:, i : i + height, j : j + width] for i, j in ((1, 1), (0, 0), (2, 2))]
        views = jnp.stack([view for each in moved for view in (each, each[:, :, ::-1])])
        weights = np.array([0.25, 0.25, 0.125, 0.125, 0.125, 0.125], np.float32)
        logits = lax.map(lambda view: model.apply(params, stats, view, mode="eval")[0], views)
        return jnp.tensordot(weights, logits, axes=1), stats

    return StatefulModel(model.init, apply)
