"""Convolution closed under differentiation, as matrix products.

A convolution `conv(x, w)`, its input gradient and its weight gradient are the three ways to
contract the trilinear form `T(x, w, y) = <conv(x, w), y>` with two of its arguments. Each is
bilinear, and every derivative of one is another of the three. Here they are three primitives, so
differentiation of any order and mode (reverse over reverse, forward over reverse, under vmap)
never leaves them, and each has one fast form: im2col and one matrix product.

Under `vmap` an operand that is shared folds the mapped axis into a free axis of the other one (a
larger product, no copies of weights); where both are mapped, as in MAML, it becomes a *batched*
matrix product and never a grouped convolution, which XLA runs 10 times slower on CPU
(https://github.com/jax-ml/jax/issues/13800).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdl.errors import InputError
from jaxdl.types import Array

Pair = tuple[int, int]
Im2col = Callable[[Array, "Geometry"], Array]
Padding = str | int | Sequence[int | Sequence[int]]


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


# The three bilinear maps. Every operand carries a leading axis `g` of independent convolutions:
# x [g, n, h, w, c], w [g, kh, kw, c, o], y [g, n, oh, ow, o].


def _columns(x: Array, geometry: Geometry) -> Array:
    """im2col: `[g, n * oh * ow, kh * kw * c]`, from shifted slices."""
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    columns = jnp.concatenate(_taps(x, geometry), axis=-1)
    return columns.reshape(x.shape[0], x.shape[1] * oh * ow, kh * kw * x.shape[-1])


def _columns_cpu(x: Array, geometry: Geometry) -> Array:
    """The same, in the form that XLA's CPU code runs fastest."""
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    g, n, _, _, c = x.shape
    if kh * kw == 1 or c < _WIDE or x.size == 0:
        return _columns(x, geometry)
    columns = _fenced(partial(_pixels, geometry=geometry), x)
    return columns.reshape(g, n * oh * ow, kh * kw * c)


# From this number of channels on, im2col gathers whole pixels, which XLA's CPU code copies in
# a third of the time that it takes to concatenate shifted slices.
_WIDE = 16


def _pixels(x: Array, geometry: Geometry) -> Array:
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


def _fenced(f: Callable[[Array], Array], x: Array) -> Array:
    """`f(x)`, computed apart: XLA fuses nothing across the branches of a conditional.

    Left alone, it fuses the gather of pixels with the reshape to a matrix and then finds every
    single element by division and remainder, 5 times slower; an optimisation barrier is gone by
    then. The condition always holds (NaN included), and XLA does not know it.
    """
    shape = jax.eval_shape(f, x)
    always = ~(x[(0,) * x.ndim] < -jnp.inf)
    return cast(Array, lax.cond(always, f, lambda _: jnp.zeros(shape.shape, shape.dtype), x))


def _pad(x: Array, geometry: Geometry) -> Array:
    config = ((0, 0, 0), (0, 0, 0), *((*p, 0) for p in geometry.padding), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _taps(x: Array, geometry: Geometry) -> list[Array]:
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


def _matmul(a: Array, b: Array, contract: Pair) -> Array:
    """Product of `[g, ., .]` and `[g, ., .]`, contracting the given axis of each."""
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((0,), (0,))))


def _conv_product(x: Array, w: Array, geometry: Geometry, columns: Im2col = _columns_cpu) -> Array:
    g, n, o = x.shape[0], x.shape[1], w.shape[-1]
    y = _matmul(columns(x, geometry), w.reshape(g, -1, o), (2, 1))
    return y.reshape(g, n, *geometry.out, o)


def _grad_w_product(
    x: Array, y: Array, geometry: Geometry, columns: Im2col = _columns_cpu
) -> Array:
    g, c, o = x.shape[0], x.shape[-1], y.shape[-1]
    matrix, y = columns(x, geometry), y.reshape(g, y.shape[1] * y.shape[2] * y.shape[3], o)
    if c < _WIDE:
        w = _matmul(matrix, y, (1, 1))
    else:
        # Eigen is almost twice as fast with the wide matrix on the right. The barrier keeps XLA
        # from swapping the operands back to spare itself the small transpose.
        w = jnp.swapaxes(lax.optimization_barrier(_matmul(y, matrix, (1, 1))), 1, 2)
    return w.reshape(g, *geometry.kernel, c, o)


def _grad_x_product(y: Array, w: Array, geometry: Geometry) -> Array:
    """Column gradients by one product, then col2im.

    Rows of x whose index has the same remainder modulo the stride (a phase) are touched by the
    same taps, so every phase is a sum of shifted arrays and no scatter is needed.
    """
    (h, wd), (kh, kw), (sh, sw) = geometry.size, geometry.kernel, geometry.strides
    (top, _), (left, _) = geometry.padding
    oh, ow = geometry.out
    g, n, c, o = y.shape[0], y.shape[1], w.shape[-2], y.shape[-1]
    columns = _matmul(y.reshape(g, -1, o), w.reshape(g, -1, o), (2, 2))
    columns = columns.reshape(g, n, oh, ow, kh * kw, c)
    zero = jnp.zeros((), y.dtype)
    rows, cols = oh + (kh - 1) // sh, ow + (kw - 1) // sw

    def phase(a: int, b: int) -> Array:
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
        return sum(taps[1:], start=taps[0]) if taps else jnp.zeros((g, n, rows, cols, c), y.dtype)

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


def _library_conv(x: Array, w: Array, geometry: Geometry) -> Array:
    """The same map by `lax.conv_general_dilated`, for one shared kernel (g = 1)."""
    y = lax.conv_general_dilated(
        x[0],
        w[0],
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y[None]


def _conv_library(x: Array, w: Array, geometry: Geometry) -> Array:
    if x.shape[0] > 1:
        return _conv_product(x, w, geometry, _columns)
    return _library_conv(x, w, geometry)


def _grad_x_library(y: Array, w: Array, geometry: Geometry) -> Array:
    if y.shape[0] > 1:
        return _grad_x_product(y, w, geometry)
    x = jax.ShapeDtypeStruct((1, y.shape[1], *geometry.size, w.shape[-2]), y.dtype)
    (out,) = jax.linear_transpose(lambda x: _library_conv(x, w, geometry), x)(y)
    return cast(Array, out)


def _grad_w_library(x: Array, y: Array, geometry: Geometry) -> Array:
    if x.shape[0] > 1:
        return _grad_w_product(x, y, geometry, _columns)
    w = jax.ShapeDtypeStruct((1, *geometry.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    (out,) = jax.linear_transpose(lambda w: _library_conv(x, w, geometry), w)(y)
    return cast(Array, out)


# Mapping one operand alone folds the mapped axis into the axis that this operand shares with the
# result and not with the other operand: (axis of the operand, axis of the result).
_FREE = {
    ("x", "y"): (1, 1),  # examples
    ("y", "x"): (1, 1),
    ("w", "y"): (4, 4),  # output channels
    ("y", "w"): (4, 4),
    ("x", "w"): (4, 3),  # input channels
    ("w", "x"): (3, 4),
}


def _fold(a: Array, mapped: int, axis: int) -> Array:
    """Move the mapped axis in front of `axis` (counted without it) and merge the two."""
    a = jnp.moveaxis(a, mapped, axis)
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def _batch(
    primitive: Primitive,
    kinds: str,
    operands: Sequence[Array],
    mapped: Sequence[int | None],
    *,
    geometry: Geometry,
) -> tuple[Array, int]:
    """vmap of a primitive whose operands and result are called, say, "xwy"."""
    if None in mapped:
        lone = 0 if mapped[1] is None else 1
        axis, out_axis = _FREE[kinds[lone], kinds[2]]
    else:
        axis, out_axis = 0, 0
    sizes = [a.shape[m] for a, m in zip(operands, mapped, strict=True) if m is not None]
    operands = [
        a if m is None else _fold(a, m, axis) for a, m in zip(operands, mapped, strict=True)
    ]
    out = primitive.bind(*operands, geometry=geometry)
    folded = out.shape[out_axis]
    shape = (*out.shape[:out_axis], sizes[0], folded // sizes[0], *out.shape[out_axis + 1 :])
    return out.reshape(shape), out_axis


Contraction = Callable[[Array, Array, Geometry], Array]

# The one place that chooses the form by platform. On CPU the matrix products win everywhere
# (second-order MAML ran 11 to 18 times slower through lax.conv). An accelerator has tuned
# convolutions, so there a *shared* kernel goes to them and only per-task kernels are products:
# a rule to measure, for it was written with no accelerator at hand.
_ACCELERATORS = ("cuda", "rocm", "tpu")


def _bilinear(name: str, kinds: str, product: Contraction, library: Contraction) -> Primitive:
    """A primitive for one contraction with all its rules but the transposes."""
    primitive = Primitive(f"jaxdl_{name}")

    def bind(a: Array, b: Array, *, geometry: Geometry) -> Array:
        return cast(Array, primitive.bind(a, b, geometry=geometry))

    def abstract(a: Any, b: Any, *, geometry: Geometry) -> Any:
        axes = dict(zip(kinds, (a.shape, b.shape), strict=False))
        if kinds[2] == "y":
            shape = (*axes["x"][:2], *geometry.out, axes["w"][4])
        elif kinds[2] == "x":
            shape = (*axes["y"][:2], *geometry.size, axes["w"][3])
        else:
            shape = (axes["x"][0], *geometry.kernel, axes["x"][4], axes["y"][4])
        return jax.core.ShapedArray(shape, a.dtype)

    def by(form: Contraction) -> Any:
        return mlir.lower_fun(
            lambda a, b, *, geometry: form(a, b, geometry), multiple_results=False
        )

    primitive.def_impl(jax.jit(bind, static_argnames="geometry"))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, by(product))
    for platform in _ACCELERATORS:
        mlir.register_lowering(primitive, by(library), platform=platform)
    batching.primitive_batchers[primitive] = partial(_batch, primitive, kinds)
    return primitive


_conv_p = _bilinear("conv", "xwy", _conv_product, _conv_library)
_grad_x_p = _bilinear("conv_grad_x", "ywx", _grad_x_product, _grad_x_library)
_grad_w_p = _bilinear("conv_grad_w", "xyw", _grad_w_product, _grad_w_library)

# transpose(ct, a, b): the operand that is asked for is undefined, the other one is used.
ad.defbilinear(
    _conv_p,
    lambda y, x, w, **geometry: _grad_x_p.bind(y, w, **geometry),
    lambda y, x, w, **geometry: _grad_w_p.bind(x, y, **geometry),
)
ad.defbilinear(
    _grad_x_p,
    lambda x, y, w, **geometry: _conv_p.bind(x, w, **geometry),
    lambda x, y, w, **geometry: _grad_w_p.bind(x, y, **geometry),
)
ad.defbilinear(
    _grad_w_p,
    lambda w, x, y, **geometry: _grad_x_p.bind(y, w, **geometry),
    lambda w, x, y, **geometry: _conv_p.bind(x, w, **geometry),
)


def as_pair(value: int | Sequence[int] | None, name: str) -> Pair:
    """`value` as (height, width); None is (1, 1). InputError unless both are at least 1."""
    pair = (1, 1) if value is None else (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"{name} must be one or two positive whole numbers, not {value!r}")
    return pair[0], pair[1]


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
        pads = [padding] * 2 if isinstance(padding, int) else list(padding)
    pairs = [(p, p) if isinstance(p, int) else tuple(int(q) for q in p) for p in pads]
    if len(pairs) != 2 or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise InputError(
            f"padding must be ((top, bottom), (left, right)) of numbers >= 0, not {padding!r}"
        )
    (top, bottom), (left, right) = pairs
    return (top, bottom), (left, right)


def conv(
    x: Array, w: Array, *, strides: int | Sequence[int] = (1, 1), padding: Padding = "SAME"
) -> Array:
    """Two-dimensional convolution (cross-correlation, as in all deep-learning libraries).

    The same numbers as `lax.conv_general_dilated` with ("NHWC", "HWIO", "NHWC"), fast under
    `vmap` over `w` and for derivatives of every order and mode.

    Args:
        x: images `[n, height, width, in_channels]`, floating point.
        w: kernel `[kernel_height, kernel_width, in_channels, out_channels]`.
        strides: one or two positive numbers.
        padding: "SAME", "VALID", a number, or `((top, bottom), (left, right))`.

    Returns:
        `[n, out_height, out_width, out_channels]` in the promoted dtype of x and w.

    Raises:
        InputError: shapes that do not fit together, integers, an image smaller than the kernel.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise InputError(
            "conv needs x [n, height, width, channels] and w [kernel height, kernel width,"
            f" channels, features] with equal channels, not shapes {x.shape} and {w.shape}"
        )
    dtype = jnp.result_type(x, w)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"conv needs floating-point images and kernels, not {dtype}")
    size, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
    steps = as_pair(strides, "strides")
    geometry = Geometry(size, kernel, steps, explicit_padding(padding, size, kernel, steps))
    if min(geometry.out) < 1:
        raise InputError(f"a {kernel} kernel does not fit into an image of {size} with {padding!r}")
    y = _conv_p.bind(x.astype(dtype)[None], w.astype(dtype)[None], geometry=geometry)
    return cast(Array, y[0])


class Conv(nn.Module):
    """Drop-in for a two-dimensional `flax.linen.Conv`: same parameters, same numbers.

    Parameters: `kernel` `[kh, kw, in_channels, features]` and, with `use_bias`, `bias`
    `[features]`. Inputs `[..., height, width, in_channels]` of any dtype (promoted as Flax
    does). Not here: dilation, groups, masks, circular or causal padding.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Images `[..., height, width, in_channels]` to `[..., out_h, out_w, features]`."""
        if x.ndim < 3:
            raise InputError(f"Conv needs [..., height, width, channels], not shape {x.shape}")
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
