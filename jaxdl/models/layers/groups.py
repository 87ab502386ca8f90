"""Convolutions of a few images after another, so that im2col stays in a CPU's cache.

The columns of many large images leave the cache, and then a convolution is bound by memory. Here
each group of images goes through the same small matrix. The forms are those of contractions.py.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxdl.models.layers.contractions import (
    Geometry,
    Pair,
    W,
    X,
    Y,
    conv_product,
    grad_w_product,
    grad_x_product,
    strip_side,
)
from jaxdl.parallel import cores_per_device
from jaxdl.types import Array

GROUP, SHARED_GROUP = 2**21, 2**23
"""The most bytes of columns at once if a device has one core, and if several share a product.

Measured on two cores. One core each: the second-order step of the pooled conv-4 on images of 84
pixels takes 0.82 of the time, and 0.96 with the larger group. Two cores together: ResNet-18 with a
3x3 stem on images of 32 pixels takes 0.93 of the time, and 1.1 with the smaller group."""


def group_of(a: Array, channels: Pair, geometry: Geometry) -> int:
    """The number of images per group, for images or outputs `a` `[g, n, ...]`: a divisor of n.

    It is n if there is one group: if the columns are few, if they are strips, or if tasks have
    kernels of their own. `channels` are those of the input and of the output.

    >>> geometry = Geometry((42, 42), (3, 3), (1, 1), ((1, 1), (1, 1)))
    >>> group_of(jnp.zeros((1, 75, 42, 42, 4)), (4, 64), geometry)  # 0.25 MB of columns per image
    5
    """
    (g, n), (c, o) = a.shape[:2], channels
    (kh, kw), (oh, ow) = geometry.kernel, geometry.out
    one = oh * ow * kh * kw * c * a.dtype.itemsize
    most = GROUP if cores_per_device() == 1 else SHARED_GROUP
    # Up to twice as many bytes stay together, because two groups gain little.
    if g > 1 or kh * kw == 1 or n * one <= 2 * most or strip_side(c, o, geometry) > 1:
        return n
    return max(k for k in range(1, max(1, most // one) + 1) if n % k == 0)


def conv_in_groups(x: X, w: W, geometry: Geometry) -> Y:
    """y, as `conv_product`."""
    group = group_of(x, (x.shape[-1], w.shape[-1]), geometry)
    return _per_group(partial(conv_product, w=w, geometry=geometry), x, group)


def grad_x_in_groups(y: Y, w: W, geometry: Geometry) -> X:
    """The gradient of x, as `grad_x_product`."""
    group = group_of(y, (w.shape[-2], w.shape[-1]), geometry)
    return _per_group(partial(grad_x_product, w=w, geometry=geometry), y, group)


def grad_w_in_groups(x: X, y: Y, geometry: Geometry) -> W:
    """The gradient of w, as `grad_w_product`: a sum over the groups."""
    group = group_of(x, (x.shape[-1], y.shape[-1]), geometry)
    if group == x.shape[1]:
        return grad_w_product(x, y, geometry)
    zero = jnp.zeros((1, *geometry.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    parts = _divided(x, group), _divided(y, group)
    return lax.scan(lambda w, xy: (w + grad_w_product(*xy, geometry), None), zero, parts)[0]


def _per_group(
    form: Callable[[Array], Array], a: Float[Array, "g n ..."], group: int
) -> Float[Array, "g n ..."]:
    if group == a.shape[1]:
        return form(a)
    found = lax.map(form, _divided(a, group))
    return found.reshape(1, -1, *found.shape[3:])


def _divided(a: Float[Array, "1 n ..."], group: int) -> Float[Array, "groups 1 {group} ..."]:
    return a.reshape(-1, 1, group, *a.shape[2:])
