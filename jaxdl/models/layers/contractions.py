"""The three contractions of a convolution, each in two forms: matrix products, and XLA's own.

A convolution, its input gradient and its weight gradient contract a trilinear form with two of its
three arguments (bilinear.py). Here they are plain functions, each by im2col and one (batched)
matrix product, and each by `lax.conv_general_dilated`; conv.py has primitives made of them.

Every operand carries a leading axis `g` of independent convolutions: x `[g, n, h, w, c]`,
w `[g, kh, kw, c, o]`, y `[g, n, oh, ow, o]`.
"""

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxdl.models.layers.bilinear import batched_product
from jaxdl.types import Array
from jaxdl.xla import fenced, turned_back

Pair = tuple[int, int]
X = Float[Array, "g n height width in_channels"]
W = Float[Array, "g kernel_height kernel_width in_channels out_channels"]
Y = Float[Array, "g n out_height out_width out_channels"]
Rows = Float[Array, "g rows inputs"]
"""A matrix for each convolution, one row per output or strip of outputs."""


class Geometry(NamedTuple):
    """All static sizes of a two-dimensional convolution, in (height, width) order."""

    size: Pair
    kernel: Pair
    strides: Pair
    padding: tuple[Pair, Pair]

    @property
    def out(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (size + sum(pad) - kernel) // stride + 1
            for size, kernel, stride, pad in zip(
                self.size, self.kernel, self.strides, self.padding, strict=True
            )
        )
        return height, width


def _columns(x: X, geometry: Geometry) -> Rows:
    """im2col: `[g, n * oh * ow, kh * kw * c]`, from shifted slices."""
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    columns = jnp.concatenate(_taps(x, geometry), axis=-1)
    return columns.reshape(x.shape[0], x.shape[1] * oh * ow, kh * kw * x.shape[-1])


def _columns_cpu(x: X, geometry: Geometry) -> Rows:
    """The same, in the form that XLA's CPU code runs fastest."""
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    g, n, _, _, c = x.shape
    if kh * kw == 1 or c < _WIDE or x.size == 0:
        return _columns(x, geometry)
    columns = fenced(partial(_pixels, geometry=geometry), x)
    return columns.reshape(g, n * oh * ow, kh * kw * c)


# From this number of channels on, im2col gathers whole pixels, which XLA's CPU code copies in
# a third of the time that it takes to concatenate shifted slices.
_WIDE = 16


def _pixels(x: X, geometry: Geometry) -> Float[Array, "pixels in_channels"]:
    """The pixels under the kernel, one after the other: `[g * n * oh * ow * kh * kw, c]`."""
    (kh, kw), (sh, sw), (oh, ow) = geometry.kernel, geometry.strides, geometry.out
    x = _pad(x, geometry)
    g, n, height, width, c = x.shape
    rows = np.arange(oh)[:, None, None, None] * sh + np.arange(kh)[:, None]
    cols = np.arange(ow)[:, None, None] * sw + np.arange(kw)
    window = (rows * width + cols).astype(np.int32).reshape(1, -1)
    image = jnp.arange(g * n, dtype=jnp.int32)[:, None] * (height * width)
    index = (image + window).reshape(-1)
    return x.reshape(-1, c).at[index].get(mode="promise_in_bounds")


def _pad(x: X, geometry: Geometry) -> Float[Array, "g n padded_height padded_width in_channels"]:
    config = ((0, 0, 0), (0, 0, 0), *((*p, 0) for p in geometry.padding), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _taps(x: X, geometry: Geometry) -> list[Float[Array, "g n out_height out_width in_channels"]]:
    """The kh * kw shifted views of x, each `[g, n, oh, ow, c]`, that the kernel multiplies."""
    (kh, kw), (sh, sw), (oh, ow) = geometry.kernel, geometry.strides, geometry.out
    x = _pad(x, geometry)
    g, n, _, _, c = x.shape
    return [
        lax.slice(
            x,
            (0, 0, i, j, 0),
            (g, n, i + (oh - 1) * sh + 1, j + (ow - 1) * sw + 1, c),
            (1, 1, sh, sw, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]


def conv_product(x: X, w: W, geometry: Geometry, *, cpu: bool = True) -> Y:
    """y by one matrix product; `cpu`: im2col and product in the forms that CPUs run fast."""
    g, n, o = x.shape[0], x.shape[1], w.shape[-1]
    columns, side = (_columns_cpu, _side(x.shape[-1], o, geometry)) if cpu else (_columns, 1)
    if side > 1:
        y = batched_product(_strips(x, geometry, side), _banded(w, geometry, side), (2, 1))
    else:
        y = batched_product(columns(x, geometry), w.reshape(g, -1, o), (2, 1))
    return y.reshape(g, n, *geometry.out, o)


def grad_w_product(x: X, y: Y, geometry: Geometry, *, cpu: bool = True) -> W:
    """The gradient of w by one matrix product."""
    g, c, o = x.shape[0], x.shape[-1], y.shape[-1]
    columns, side = (_columns_cpu, _side(c, o, geometry)) if cpu else (_columns, 1)
    if side > 1:
        # Fenced, lest XLA computes the cotangent as this matrix, each index by divisions.
        y = fenced(lambda y: y, y) if y.size else y
        strips = _strips(x, geometry, side)
        return _off_band(
            batched_product(strips, y.reshape(g, -1, side * o), (1, 1)), geometry, side, c
        )
    matrix, y = columns(x, geometry), y.reshape(g, y.shape[1] * y.shape[2] * y.shape[3], o)
    if c < _WIDE or matrix.shape[1] < 3 * o:
        w = batched_product(matrix, y, (1, 1))
    else:
        # Of a long product Eigen is faster with the wide matrix on the right; of a short one the
        # transpose costs more.
        w = turned_back(batched_product(y, matrix, (1, 1)))
    return w.reshape(g, *geometry.kernel, c, o)


# Few channels make im2col dear, for it copies every number kh * kw times, and the product narrow.
# There `side` neighbouring outputs share a row of the matrix, the strip of image that they all see,
# and the kernel becomes a band of copies of itself, each one stride further along. The zeros beside
# the band cost arithmetic, the strips save memory: a LeNet's first layer takes a seventh.


_BAND = 32
"""Columns of the banded kernel, at most: conv-4's 64 filters take the plain matrix."""


def _side(c: int, o: int, geometry: Geometry) -> int:
    """How many neighbouring outputs share a row: a divisor of the output's width."""
    width = geometry.out[1]
    if c >= _WIDE or geometry.kernel[1] == 1 or width == 0:
        return 1
    most = max(1, _BAND // max(o, 1))
    return max(b for b in range(1, most + 1) if width % b == 0)


def _strips(x: X, geometry: Geometry, side: int) -> Rows:
    """What `side` outputs see, a row each: `[g, n * oh * ow / side, kh * (strip's width) * c]`."""
    (kh, kw), (sh, sw), (oh, ow) = geometry.kernel, geometry.strides, geometry.out
    x = _pad(x, geometry)
    g, n, height, _, c = x.shape
    width, step = (side - 1) * sw + kw, side * sw
    strips = [x[:, :, :, i * step : i * step + width] for i in range(ow // side)]
    strip = jnp.stack(strips, axis=3).reshape(g, n, height, len(strips), width * c)
    rows = [strip[:, :, i : i + (oh - 1) * sh + 1 : sh] for i in range(kh)]
    return jnp.concatenate(rows, axis=-1).reshape(g, n * oh * len(strips), kh * width * c)


def _banded(w: W, geometry: Geometry, side: int) -> Float[Array, "g inputs {side}*out_channels"]:
    """The kernel as a matrix for strips: `[g, kh * (strip's width) * c, side * o]`."""
    g, o, sw = w.shape[0], w.shape[-1], geometry.strides[1]
    last = (side - 1) * sw
    none = (0, 0)
    copies = [jnp.pad(w, (none, none, (j * sw, last - j * sw), none, none)) for j in range(side)]
    return jnp.stack(copies, axis=4).reshape(g, -1, side * o)


def _off_band(
    matrix: Float[Array, "g inputs outputs"], geometry: Geometry, side: int, c: int
) -> Float[Array, "g kernel_height kernel_width {c} outputs//{side}"]:
    """The transpose of `_banded`: the kernel `[g, kh, kw, c, o]`, summed over its copies."""
    (kh, kw), (_, sw) = geometry.kernel, geometry.strides
    m = matrix.reshape(matrix.shape[0], kh, (side - 1) * sw + kw, c, side, -1)
    copies = [m[:, :, j * sw : j * sw + kw, :, j] for j in range(side)]
    return sum(copies[1:], start=copies[0])


def grad_x_product(y: Y, w: W, geometry: Geometry, *, cpu: bool = True) -> X:
    """The gradient of x: that of its columns by one product, then col2im.

    Rows of x whose index has the same remainder modulo the stride (a phase) are touched by the
    same taps, so every phase is a sum of shifted arrays and no scatter is needed.
    """
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    g, n, c, o = y.shape[0], y.shape[1], w.shape[-2], y.shape[-1]
    columns = batched_product(y.reshape(g, -1, o), w.reshape(g, -1, o), (2, 2))
    back = partial(_image, geometry=geometry)
    columns = columns.reshape(g, n, oh, ow, kh * kw, c)
    # Unfenced, XLA fuses the sum of all taps into whatever reads it, once for each reader.
    return fenced(back, columns) if cpu and columns.size else back(columns)


def _image(
    columns: Float[Array, "g n out_height out_width taps in_channels"], geometry: Geometry
) -> X:
    """col2im: `[g, n, oh, ow, kh * kw, c]` summed up to `[g, n, h, w, c]`."""
    (h, wd), (kh, kw), (sh, sw) = geometry.size, geometry.kernel, geometry.strides
    (top, _), (left, _) = geometry.padding
    g, n, oh, ow, _, c = columns.shape
    zero = jnp.zeros((), columns.dtype)
    rows, cols = oh + (kh - 1) // sh, ow + (kw - 1) // sw

    def phase(a: int, b: int) -> Float[Array, "g n rows columns in_channels"]:
        taps = [
            lax.pad(
                columns[..., i * kw + j, :],
                zero,
                (
                    (0, 0, 0),
                    (0, 0, 0),
                    (i // sh, rows - oh - i // sh, 0),
                    (j // sw, cols - ow - j // sw, 0),
                    (0, 0, 0),
                ),
            )
            for i in range(a, kh, sh)
            for j in range(b, kw, sw)
        ]
        return (
            sum(taps[1:], start=taps[0])
            if taps
            else jnp.zeros((g, n, rows, cols, c), columns.dtype)
        )

    x = jnp.stack(
        [jnp.stack([phase(a, b) for b in range(sw)], axis=4) for a in range(sh)], axis=3
    ).reshape(g, n, rows * sh, cols * sw, c)
    return lax.pad(
        x,
        zero,
        (
            (0, 0, 0),
            (0, 0, 0),
            (-top, h + top - rows * sh, 0),
            (-left, wd + left - cols * sw, 0),
            (0, 0, 0),
        ),
    )


def _library_conv(x: X, w: W, geometry: Geometry) -> Y:
    """The same map by `lax.conv_general_dilated`, for one shared kernel (g = 1)."""
    y = lax.conv_general_dilated(
        x[0],
        w[0],
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y[None]


def conv_library(x: X, w: W, geometry: Geometry) -> Y:
    """y by the library where all examples share one kernel, else by a batched product."""
    if x.shape[0] > 1:
        return conv_product(x, w, geometry, cpu=False)
    return _library_conv(x, w, geometry)


def grad_x_library(y: Y, w: W, geometry: Geometry) -> X:
    """The gradient of x, likewise."""
    if y.shape[0] > 1:
        return grad_x_product(y, w, geometry, cpu=False)
    x = jax.ShapeDtypeStruct((1, y.shape[1], *geometry.size, w.shape[-2]), y.dtype)
    (out,) = jax.linear_transpose(lambda x: _library_conv(x, w, geometry), x)(y)
    return cast(Array, out)


def grad_w_library(x: X, y: Y, geometry: Geometry) -> W:
    """The gradient of w, likewise."""
    if x.shape[0] > 1:
        return grad_w_product(x, y, geometry, cpu=False)
    w = jax.ShapeDtypeStruct((1, *geometry.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    (out,) = jax.linear_transpose(lambda w: _library_conv(x, w, geometry), w)(y)
    return cast(Array, out)
