"""The form of a convolution on a CPU: XLA's own where it is faster, else im2col.

`scripts/benchmark --convolutions` measures both. On one core, XLA's convolution and input gradient
take 0.5 to 0.9 of the time of im2col, with 16 to 160 channels and strides of 1. Elsewhere im2col is
about as fast or faster: with few channels, with strides, and if several cores share a product. With
more channels, it is faster for few images, and up to 1.25 times slower for many. XLA's weight
gradient takes 0.8 to 3 times as long, and in a loop 8 to 28 times. So a second-order MAML step of
the pooled conv-4 takes 0.9 of the time of im2col alone (32 pixels, 2 cores).
"""

import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.models.layers.contractions import Geometry, W, X, Y
from jaxdl.models.layers.groups import conv_in_groups, grad_x_in_groups
from jaxdl.models.layers.library import conv_library, grad_x_by_conv
from jaxdl.parallel import cores_per_device
from jaxdl.types import Array

LEAST, MOST = 16, 160
"""The channels, of input and of output, with which XLA's own convolution is the faster."""


def library_is_faster(a: Float[Array, "g n ..."], w: W, geometry: Geometry) -> bool:
    """Whether XLA's own form is the faster, for images or outputs `a` and kernels `w`.

    It has a fast form in float32 alone, and `grad_x_by_conv` has no padding beyond the kernel.

    >>> from unittest import mock
    >>> x, w = jnp.zeros((1, 5, 16, 16, 32)), jnp.zeros((1, 3, 3, 32, 32))
    >>> geometry = Geometry((16, 16), (3, 3), (1, 1), ((1, 1), (1, 1)))
    >>> with mock.patch("jaxdl.models.layers.cpu.cores_per_device", lambda: 1):
    ...     library_is_faster(x, w, geometry)
    ...     library_is_faster(x, w, geometry._replace(strides=(2, 2)))
    True
    False
    """
    (kh, kw), (rows, columns) = geometry.kernel, geometry.padding
    return (
        cores_per_device() == 1
        and a.shape[0] == 1
        and a.size > 0
        and a.dtype == w.dtype == jnp.float32
        and LEAST <= min(w.shape[-2:]) <= max(w.shape[-2:]) <= MOST
        and geometry.strides == (1, 1)
        and kh * kw > 1
        and max(rows) < kh
        and max(columns) < kw
    )


def conv_on_cpu(x: X, w: W, geometry: Geometry) -> Y:
    """y, as `conv_product`."""
    form = conv_library if library_is_faster(x, w, geometry) else conv_in_groups
    return form(x, w, geometry)


def grad_x_on_cpu(y: Y, w: W, geometry: Geometry) -> X:
    """The gradient of x, as `grad_x_product`."""
    form = grad_x_by_conv if library_is_faster(y, w, geometry) else grad_x_in_groups
    return form(y, w, geometry)
