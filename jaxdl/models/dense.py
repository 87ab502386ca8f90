"""Matrix products of dense layers, in the form that XLA's CPU code runs fast."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxdl.types import Array

NARROW = 32
"""Outputs up to which a layer is narrow: heads of classifiers."""


def product(x: Array, w: Array, dimension_numbers: Any, **options: Any) -> Array:
    """`lax.dot_general` for `flax.linen.Dense`, whose weight gradient is fast for narrow layers.

    The gradient of `[inputs, 10]` weights is a product with ten columns, for which Eigen takes ten
    times as long as for its transpose (80 against 7 microseconds for 512 inputs and a batch of 64).
    So narrow weights are turned first, and the barrier keeps XLA from turning them back.
    """
    if w.ndim != 2 or w.shape[1] > NARROW:
        return lax.dot_general(x, w, dimension_numbers, **options)
    (over, _), batch = dimension_numbers
    turned = lax.optimization_barrier(jnp.swapaxes(w, 0, 1))
    return lax.dot_general(x, turned, ((over, (1,)), batch), **options)
