"""Dense layers whose products, and all derivatives of these, have the fastest form."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Float

from jaxdl.models.layers.bilinear import Forms, batched_product, trilinear
from jaxdl.types import Array
from jaxdl.xla import turned, turned_back

X = Float[Array, "g n inputs"]
W = Float[Array, "g inputs outputs"]
Y = Float[Array, "g n outputs"]

NARROW = 32
"""A layer with at most this many outputs is narrow, such as the head of a classifier."""
FEW = 64
"""A product with weights per task is short up to this many rows: the examples of one task."""


def _outputs(x: X, w: W, _: None) -> Y:
    if w.shape[0] == 1 and w.shape[2] <= NARROW:
        return batched_product(x, turned(w), (2, 2))
    return batched_product(x, w, (2, 1))


def _inputs(y: Y, w: W, _: None) -> X:
    if w.shape[0] == 1 and w.shape[2] <= NARROW:
        return batched_product(y, turned(w), (2, 1))
    return batched_product(y, w, (2, 2))


def _weights(x: X, y: Y, _: None) -> W:
    """The gradient of weights. It contracts the *first* axes; XLA's fast kernels contract the last.

    For a narrow layer, XLA calls Eigen. There ten columns take ten times as long as their transpose
    (80 against 7 microseconds for 512 inputs and a batch of 64), so the transpose is computed. For
    the few examples of a task, a transpose of the narrower side and a fast kernel take 0.6 of
    Eigen's time (24 against 39 for 25 x 10 x 40 x 40). For many examples, the copy costs more than
    it saves. A side of length 1 needs no product.
    """
    tasks, rows, inputs = x.shape
    outputs = y.shape[2]
    if tasks == 1:
        if outputs > NARROW:
            return batched_product(x, y, (1, 1))
        return turned_back(batched_product(y, x, (1, 1)))
    if rows > FEW or min(inputs, outputs) == 1:
        return batched_product(x, y, (1, 1))
    if outputs < inputs:
        return turned_back(batched_product(turned(y), x, (2, 1)))
    return batched_product(turned(x), y, (2, 1))


def _shape(result: str, of: Mapping[str, tuple[int, ...]], _: None) -> tuple[int, ...]:
    if result == "y":
        return (*of["x"][:2], of["w"][2])
    if result == "x":
        return (*of["y"][:2], of["w"][1])
    return (of["x"][0], of["x"][2], of["y"][2])


_product = trilinear(
    "dense",
    Forms(_outputs, _inputs, _weights),
    accelerated=Forms(
        lambda x, w, _: batched_product(x, w, (2, 1)),
        lambda y, w, _: batched_product(y, w, (2, 2)),
        lambda x, y, _: batched_product(x, y, (1, 1)),
    ),
    free={
        ("x", "y"): (1, 1),  # examples
        ("y", "x"): (1, 1),
        ("w", "y"): (2, 2),  # outputs
        ("y", "w"): (2, 2),
        ("x", "w"): (2, 1),  # inputs
        ("w", "x"): (1, 2),
    },
    shape=_shape,
)


def product(x: Array, w: Array, dimension_numbers: Any, **options: Any) -> Array:
    """`lax.dot_general` for `flax.linen.Dense`, fast in every derivative and under `vmap`.

    It serves x `[..., inputs]` times w `[inputs, outputs]`, both of one floating-point dtype and
    with no precision set. Every other product goes to `lax.dot_general`.
    """
    layer = ((x.ndim - 1,), (0,)), ((), ())
    fits = w.ndim == 2 and x.shape[-1:] == w.shape[:1] and dimension_numbers == layer
    floating = x.dtype == w.dtype and jnp.issubdtype(x.dtype, jnp.floating)
    config: Any = jax.config  # its attributes are made at run time
    precision = config.jax_default_matmul_precision
    if not fits or not floating or any(v is not None for v in (precision, *options.values())):
        return lax.dot_general(x, w, dimension_numbers, **options)
    y = _product(x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1]), w[None], None)
    return y.reshape(*x.shape[:-1], w.shape[1])


Dense = partial(nn.Dense, dot_general=product)
"""`flax.linen.Dense` with `product` as its product."""
