"""What XLA must be told, so that a program is as fast as its arithmetic.

XLA decides alone what it fuses, what it copies and in which order it computes. Each function here
changes one such decision and no number. Tests look for the effect in the compiled program.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Shaped

from jaxdl.types import Array, Count, Grads

Reading = TypeVar("Reading")

LARGE = 2**22
"""Bytes of parameters from which on `together` works: a copy of fewer stays in the cache."""


def together(grads: Grads) -> Grads:
    """The same gradients, none of which is there before the last of them.

    XLA updates parameters in place only where nothing can still read the old ones. The backward
    pass below a layer reads its kernel, and waits no more for the update of that kernel than the
    update waits for it, so every kernel was copied in every step: a quarter of the time of a
    ResNet-18 on small images (2 CPU cores).
    """
    leaves = [leaf for leaf in jax.tree.leaves(grads) if leaf.size]
    if sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) < LARGE:
        return grads
    # XLA knows that a minimum with 0 is at most 0, not that it is 0.
    zero = jnp.minimum(jnp.abs(sum(leaf.ravel()[0].astype(jnp.float32) for leaf in leaves)), 0)
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), grads)


def fenced(f: Callable[[Array], Array], x: Array) -> Array:
    """`f(x)`, computed apart: XLA fuses nothing across the branches of a conditional.

    Left alone, it fuses the gather of pixels with the reshape to a matrix and then finds every
    single element by division and remainder, 5 times slower; an optimisation barrier is gone by
    then. The condition always holds (NaN included), and XLA does not know it. Both branches take x,
    so that XLA sees when two conditionals are the same: the columns of a layer's input serve its
    forward pass and every derivative that needs them, where each gathered them for itself. `f`
    keeps the dtype.
    """
    shape = jax.eval_shape(f, x)
    always = ~(x[(0,) * x.ndim] < -jnp.inf)
    return cast(Array, lax.cond(always, f, lambda x: jnp.full(shape.shape, x[(0,) * x.ndim]), x))


def turned(a: Shaped[Array, "g m n"]) -> Shaped[Array, "g n m"]:
    """The transpose of an operand `[g, ., .]` of a product, computed before the product.

    Without the barrier XLA folds the transpose into the product, whose form is then a slow one.
    """
    return lax.optimization_barrier(jnp.swapaxes(a, 1, 2))


def turned_back(a: Shaped[Array, "g m n"]) -> Shaped[Array, "g n m"]:
    """The transpose of a product `[g, ., .]`, computed after the product: see `turned`."""
    return jnp.swapaxes(lax.optimization_barrier(a), 1, 2)


def all_at_once(size: Count, reading: Callable[[], Reading]) -> Reading:
    """What `reading` returns, read once and before anything that depends on any part of it.

    XLA copies an array that is read and overwritten unless every read comes before the write by
    what depends on what; and it reads again wherever a value is used. A branch it leaves whole.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(reading))
    return lax.cond(size >= 0, reading, lambda: zeros)  # always, but XLA does not know


def after(
    earlier: Shaped[Array, "..."], size: Count, value: Shaped[Array, "*shape"]
) -> Shaped[Array, "*shape"]:
    """`value`, in a way that XLA takes for dependent on `earlier`."""
    return jnp.where(size < 0, earlier.sum().astype(value.dtype), value)
