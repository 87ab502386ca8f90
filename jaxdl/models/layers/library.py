"""The three contractions of a convolution, by `lax.conv_general_dilated`.

They are those of contractions.py, for one shared kernel (g = 1). Kernels of their own go through a
batched product in the form for accelerators, because XLA's grouped convolution is slow.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.models.layers.contractions import (
    Geometry,
    W,
    X,
    Y,
    conv_product,
    grad_w_product,
    grad_x_product,
)
from jaxdl.types import Array


def _library_conv(x: X, w: W, geometry: Geometry) -> Y:
    """y by `lax.conv_general_dilated`, for one shared kernel (g = 1)."""
    y = lax.conv_general_dilated(
        x[0],
        w[0],
        geometry.strides,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y[None]


def conv_library(x: X, w: W, geometry: Geometry) -> Y:
    """y by the library if all examples share one kernel (g = 1), else by a batched product."""
    if x.shape[0] > 1:
        return conv_product(x, w, geometry, cpu=False)
    return _library_conv(x, w, geometry)


def grad_x_library(y: Y, w: W, geometry: Geometry) -> X:
    """The gradient of x, by the same choice as `conv_library`."""
    if y.shape[0] > 1:
        return grad_x_product(y, w, geometry, cpu=False)
    x = jax.ShapeDtypeStruct((1, y.shape[1], *geometry.size, w.shape[-2]), y.dtype)
    (out,) = jax.linear_transpose(lambda x: _library_conv(x, w, geometry), x)(y)
    return cast(Array, out)


def grad_x_by_conv(y: Y, w: W, geometry: Geometry) -> X:
    """The gradient of x as a library convolution of y with the kernel turned by 180 degrees.

    It is for one shared kernel (g = 1), strides of 1, and a padding smaller than the kernel. The
    convolution that `grad_x_library` transposes to swaps the channels of the kernel by itself. A
    CPU has no fast form for this, and the step of a pooled conv-4 takes six times as long.
    """
    turned = jnp.swapaxes(w[:, ::-1, ::-1], -1, -2)
    (top, bottom), (left, right) = (
        (taps - 1 - before, taps - 1 - after)
        for taps, (before, after) in zip(geometry.kernel, geometry.padding, strict=True)
    )
    back = Geometry(geometry.out, geometry.kernel, (1, 1), ((top, bottom), (left, right)))
    return _library_conv(y, turned, back)


def grad_w_library(x: X, y: Y, geometry: Geometry) -> W:
    """The gradient of w, by the same choice as `conv_library`."""
    if x.shape[0] > 1:
        return grad_w_product(x, y, geometry, cpu=False)
    w = jax.ShapeDtypeStruct((1, *geometry.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    (out,) = jax.linear_transpose(lambda w: _library_conv(x, w, geometry), w)(y)
    return cast(Array, out)
