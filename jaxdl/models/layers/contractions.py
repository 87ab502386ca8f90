"""The three contractions of a convolution, by matrix products.

A convolution, its input gradient and its weight gradient contract a trilinear form with two of its
three arguments (bilinear.py). Here they are plain functions, each by im2col and one (batched)
matrix product. library.py has them by XLA's own convolution. conv.py makes primitives from them.

Every operand has a leading axis `g` of independent convolutions: x `[g, n, h, w, c]`,
w `[g, kh, kw, c, o]`, y `[g, n, oh, ow, o]`.
"""

from functools import partial
from typing import NamedTuple

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
"""One matrix per convolution. A row belongs to one output position, or to one strip of them."""


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
    """The same as `_columns`, in the form that XLA's CPU code runs fastest."""
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
    # `window` has the offsets of the pixels in one image, [1, oh * ow * kh * kw], and `image` the
    # offset of each image, [g * n, 1]. Their sum indexes the rows of x as `[pixels, c]`.
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
    """The kh * kw shifted views of x, each `[g, n, oh, ow, c]`, one per entry of the kernel."""
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
    """y by one matrix product. `cpu` selects the forms that CPUs run fast."""
    g, n, o = x.shape[0], x.shape[1], w.shape[-1]
    columns, side = (_columns_cpu, strip_side(x.shape[-1], o, geometry)) if cpu else (_columns, 1)
    if side > 1:
        y = batched_product(_strips(x, geometry, side), _banded(w, geometry, side), (2, 1))
    else:
        y = batched_product(columns(x, geometry), w.reshape(g, -1, o), (2, 1))
    return y.reshape(g, n, *geometry.out, o)


def grad_w_product(x: X, y: Y, geometry: Geometry, *, cpu: bool = True) -> W:
    """The gradient of w by one matrix product."""
    g, c, o = x.shape[0], x.shape[-1], y.shape[-1]
    columns, side = (_columns_cpu, strip_side(c, o, geometry)) if cpu else (_columns, 1)
    if side > 1:
        # Without the fence, XLA computes the cotangent in the layout of this matrix, with divisions
        # for each index.
        y = fenced(lambda y: y, y) if y.size else y
        strips = _strips(x, geometry, side)
        return _off_band(
            batched_product(strips, y.reshape(g, -1, side * o), (1, 1)), geometry, side, c
        )
    matrix, y = columns(x, geometry), y.reshape(g, y.shape[1] * y.shape[2] * y.shape[3], o)
    if c < _WIDE or matrix.shape[1] < 3 * o:
        w = batched_product(matrix, y, (1, 1))
    else:
        # A product over many rows is faster in Eigen with the wide matrix on the right. With few
        # rows, the transpose of the result costs more than it saves.
        w = turned_back(batched_product(y, matrix, (1, 1)))
    return w.reshape(g, *geometry.kernel, c, o)


# Strips, for inputs of few channels. There im2col is expensive, because it copies every number
# kh * kw times, and the product is narrow. With strips, `side` neighbouring outputs of one image
# row share a row of the matrix. This row is the strip of the image that all of them depend on. The
# kernel becomes a banded matrix: one copy of the kernel per output of the strip, each shifted by
# one stride from the last, and zeros elsewhere:
#
#     y[..., side * o] = strip[..., kh * width * c] @ band[kh * width * c, side * o]
#
# Here width = (side - 1) * stride + kw is the width of the strip. The zeros cost arithmetic, but
# the strips save memory traffic: the first layer of a LeNet takes a seventh of the time.


_BAND = 32
"""Most columns of the banded kernel. So conv-4, with 64 filters, takes the plain matrix."""


def strip_side(c: int, o: int, geometry: Geometry) -> int:
    """The number of neighbouring outputs per row: a divisor of the output's width, 1 for none."""
    width = geometry.out[1]
    if c >= _WIDE or geometry.kernel[1] == 1 or width == 0:
        return 1
    most = max(1, _BAND // max(o, 1))
    return max(b for b in range(1, most + 1) if width % b == 0)


def _strips(x: X, geometry: Geometry, side: int) -> Rows:
    """The strips, one per row: `[g, n * oh * ow / side, kh * (strip's width) * c]`."""
    (kh, kw), (sh, sw), (oh, ow) = geometry.kernel, geometry.strides, geometry.out
    x = _pad(x, geometry)
    g, n, height, _, c = x.shape
    width, step = (side - 1) * sw + kw, side * sw
    # First along the width: ow / side strips of each image row, [g, n, height, strips, width * c].
    # Neighbouring strips overlap where the kernel is wider than its stride.
    strips = [x[:, :, :, i * step : i * step + width] for i in range(ow // side)]
    strip = jnp.stack(strips, axis=3).reshape(g, n, height, len(strips), width * c)
    # Then along the height: the kh image rows under the kernel, each [g, n, oh, strips, width * c].
    # Joined, the last axis is (kh, width, c), in the order of the rows of `_banded`.
    rows = [strip[:, :, i : i + (oh - 1) * sh + 1 : sh] for i in range(kh)]
    return jnp.concatenate(rows, axis=-1).reshape(g, n * oh * len(strips), kh * width * c)


def _banded(w: W, geometry: Geometry, side: int) -> Float[Array, "g inputs {side}*out_channels"]:
    """The kernel as a matrix for strips: `[g, kh * (strip's width) * c, side * o]`."""
    g, o, sw = w.shape[0], w.shape[-1], geometry.strides[1]
    last = (side - 1) * sw
    none = (0, 0)
    # Copy j is [g, kh, strip's width, c, o]. It has the kernel at column j * sw, because output j
    # of a strip begins there, and zeros elsewhere. Stacked: [g, kh, strip's width, c, side, o].
    copies = [jnp.pad(w, (none, none, (j * sw, last - j * sw), none, none)) for j in range(side)]
    return jnp.stack(copies, axis=4).reshape(g, -1, side * o)


def _off_band(
    matrix: Float[Array, "g inputs outputs"], geometry: Geometry, side: int, c: int
) -> Float[Array, "g kernel_height kernel_width {c} outputs//{side}"]:
    """The transpose of `_banded`: the gradient of the kernel `[g, kh, kw, c, o]`.

    It is the sum over the copies. The gradient of the zeros beside the band is dropped.
    """
    (kh, kw), (_, sw) = geometry.kernel, geometry.strides
    m = matrix.reshape(matrix.shape[0], kh, (side - 1) * sw + kw, c, side, -1)
    copies = [m[:, :, j * sw : j * sw + kw, :, j] for j in range(side)]
    return sum(copies[1:], start=copies[0])


def grad_x_product(y: Y, w: W, geometry: Geometry, *, cpu: bool = True) -> X:
    """The gradient of x: that of its columns by one product, then col2im.

    A phase is the set of all positions of x with the same remainder modulo the stride. The same
    taps of the kernel touch all positions of a phase. So every phase is a sum of shifted arrays,
    and no scatter is needed.
    """
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    g, n, c, o = y.shape[0], y.shape[1], w.shape[-2], y.shape[-1]
    columns = batched_product(y.reshape(g, -1, o), w.reshape(g, -1, o), (2, 2))
    back = partial(_image, geometry=geometry)
    columns = columns.reshape(g, n, oh, ow, kh * kw, c)
    # Without the fence, XLA fuses the sum of all taps into each of its readers, and repeats it.
    return fenced(back, columns) if cpu and columns.size else back(columns)


def _image(
    columns: Float[Array, "g n out_height out_width taps in_channels"], geometry: Geometry
) -> X:
    """col2im: `[g, n, oh, ow, kh * kw, c]` summed up to `[g, n, h, w, c]`."""
    (h, wd), (kh, kw), (sh, sw) = geometry.size, geometry.kernel, geometry.strides
    (top, _), (left, _) = geometry.padding
    g, n, oh, ow, _, c = columns.shape
    zero = jnp.zeros((), columns.dtype)
    # Positions per phase. All phases together cover rows * sh by cols * sw padded positions.
    rows, cols = oh + (kh - 1) // sh, ow + (kw - 1) // sw

    # The padded positions (a + r * sh, b + s * sw), as [g, n, rows, cols, c]. Output (r', s') adds
    # its tap (i, j) at row r' + i // sh and column s' + j // sw, for i % sh == a and j % sw == b.
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

    # [g, n, rows, sh, cols, sw, c]: the phases interleaved, and then merged to the padded image.
    x = jnp.stack(
        [jnp.stack([phase(a, b) for b in range(sw)], axis=4) for a in range(sh)], axis=3
    ).reshape(g, n, rows * sh, cols * sw, c)
    # Negative padding cuts off the padding of x. Rows that no kernel touched are added as zeros.
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
