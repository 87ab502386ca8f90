"""Convolution closed under differentiation, as matrix products.

A convolution, its input gradient and its weight gradient contract one trilinear form.
`bilinear.trilinear` makes three primitives of them. All derivatives use these three alone. Each has
one fast form: im2col and one matrix product, or XLA's own convolution where that is faster, see
cpu.py. If `vmap` maps over tasks with kernels of their own, as in MAML, the form is a *batched*
product. It is never a grouped convolution, which XLA runs 10 times slower on CPU
(https://github.com/jax-ml/jax/issues/13800).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.models.layers.bilinear import Forms, trilinear
from jaxdl.models.layers.contractions import Geometry, Pair
from jaxdl.models.layers.cpu import conv_on_cpu, grad_x_on_cpu
from jaxdl.models.layers.groups import grad_w_in_groups
from jaxdl.models.layers.library import conv_library, grad_w_library, grad_x_library
from jaxdl.types import Array

Padding = str | int | Sequence[int | Sequence[int]]


def _shape(result: str, of: Mapping[str, tuple[int, ...]], geometry: Geometry) -> tuple[int, ...]:
    if result == "y":
        return (*of["x"][:2], *geometry.out, of["w"][4])
    if result == "x":
        return (*of["y"][:2], *geometry.size, of["w"][3])
    return (of["x"][0], *geometry.kernel, of["x"][4], of["y"][4])


# JAX's own rules of derivatives make second-order MAML 11 to 18 times slower on CPU. An accelerator
# has tuned convolutions. So there a *shared* kernel uses these, and only kernels per task use
# products. This rule was written without an accelerator, so measure it.
_conv = trilinear(
    "conv",
    Forms(conv_on_cpu, grad_x_on_cpu, grad_w_in_groups),
    accelerated=Forms(conv_library, grad_x_library, grad_w_library),
    free={
        ("x", "y"): (1, 1),  # examples
        ("y", "x"): (1, 1),
        ("w", "y"): (4, 4),  # output channels
        ("y", "w"): (4, 4),
        ("x", "w"): (4, 3),  # input channels
        ("w", "x"): (3, 4),
    },
    shape=_shape,
)


def as_pair(value: int | Sequence[int] | None, name: str) -> Pair:
    """`value` as (height, width). None is (1, 1).

    Raises:
        InputError: if one of both is below 1.
    """
    pair = np.atleast_1d(1 if value is None else np.asarray(value))
    if pair.shape not in ((1,), (2,)) or pair.dtype.kind not in "iu" or pair.min() < 1:
        raise InputError(f"{name} must be one or two positive whole numbers, not {value!r}")
    return int(pair[0]), int(pair[-1])


def explicit_padding(
    padding: Padding, size: Pair, kernel: Pair, strides: Pair
) -> tuple[Pair, Pair]:
    """Padding as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise InputError(
                f"padding must be 'SAME', 'VALID', a number or two pairs, not {padding!r}"
            )
        pads: Sequence[Any] = lax.padtype_to_pads(size, kernel, strides, padding.upper())
    else:
        pads = [padding] * 2 if isinstance(padding, int | np.integer) else list(padding)
    pairs = [
        (int(p), int(p)) if isinstance(p, int | np.integer) else tuple(int(q) for q in p)
        for p in pads
    ]
    if len(pairs) != 2 or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise InputError(
            f"padding must be ((top, bottom), (left, right)) of numbers >= 0, not {padding!r}"
        )
    (top, bottom), (left, right) = pairs
    return (top, bottom), (left, right)


def conv(
    x: Array, w: Array, *, strides: int | Sequence[int] = (1, 1), padding: Padding = "SAME"
) -> Float[Array, "n out_height out_width out_channels"]:
    """Two-dimensional convolution (cross-correlation, as in all deep-learning libraries).

    It gives the same numbers as `lax.conv_general_dilated` with ("NHWC", "HWIO", "NHWC"). It is
    fast under `vmap` over `w`, and for derivatives of every order and mode.

    Args:
        x: images `[n, height, width, in_channels]`, floating point.
        w: kernel `[kernel_height, kernel_width, in_channels, out_channels]`.
        strides: one or two positive numbers.
        padding: "SAME", "VALID", a number, or `((top, bottom), (left, right))`.

    Returns:
        `[n, out_height, out_width, out_channels]` in the promoted dtype of x and w.

    Raises:
        InputError: if shapes do not fit together, if the dtype is not floating point, or if the
            padded image is smaller than the kernel.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise InputError(
            "conv needs x [n, height, width, channels] and w [kernel height, kernel width,"
            f" channels, features] with equal channels, not shapes {x.shape} and {w.shape}:"
            " reshape one of them"
        )
    dtype = jnp.result_type(x, w)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"conv needs floating-point images and kernels, not {dtype}: cast them")
    size, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
    steps = as_pair(strides, "strides")
    geometry = Geometry(size, kernel, steps, explicit_padding(padding, size, kernel, steps))
    if min(geometry.out) < 1:
        raise InputError(
            f"a {kernel} kernel does not fit into an image of {size} with {padding!r}: choose a"
            " smaller kernel or more padding"
        )
    return _conv(x.astype(dtype)[None], w.astype(dtype)[None], geometry)[0]


class Conv(nn.Module):
    """Drop-in for a two-dimensional `flax.linen.Conv`: same parameters, same numbers.

    Parameters are `kernel` `[kh, kw, in_channels, features]` and, with `use_bias`, `bias`
    `[features]`. Inputs are `[..., height, width, in_channels]` of any dtype, promoted as in Flax.
    It has no dilation, no groups, no masks, and no circular or causal padding.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "*n out_height out_width {self.features}"]:
        """Images `[..., height, width, in_channels]` to `[..., out_h, out_w, features]`."""
        if x.ndim < 3:
            raise InputError(
                f"Conv needs [..., height, width, channels], not shape {x.shape}: reshape the input"
            )
        shape = (*as_pair(self.kernel_size, "kernel_size"), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        images = x.reshape(-1, *x.shape[-3:])
        y = conv(images, kernel, strides=as_pair(self.strides, "strides"), padding=self.padding)
        if bias is not None:
            y = y + bias.reshape(1, 1, 1, -1)
        return y.reshape(*x.shape[:-3], *y.shape[1:])
