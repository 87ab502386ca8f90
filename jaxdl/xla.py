"""Hints to XLA that make a program as fast as its arithmetic.

XLA itself decides what it fuses, what it copies, and the order of computation. Each function here
changes one such decision, and changes no number. Tests check the effect in the compiled program.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Shaped

from jaxdl.types import Array, Count, Grads, PyTree

Reading = TypeVar("Reading")

LARGE = 2**22
"""`together` works from this many bytes of parameters on: a smaller copy stays in the cache."""


def size_in_bytes(tree: PyTree) -> int:
    """The bytes of all arrays of a tree, or of their shapes.

    >>> size_in_bytes({"w": jnp.zeros((2, 3)), "step": jax.ShapeDtypeStruct((), jnp.int8)})
    25
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def together(grads: Grads) -> Grads:
    """The same gradients, each of which depends on all of them.

    XLA updates a parameter in place only if no later operation can read its old value. The backward
    pass through a layer reads the layer's kernel, and nothing orders this read before the kernel's
    update. So XLA copied every kernel in every step, which took a quarter of the time of a
    ResNet-18 on small images (2 CPU cores).
    """
    leaves = [leaf for leaf in jax.tree.leaves(grads) if leaf.size]
    if size_in_bytes(leaves) < LARGE:
        return grads
    # The minimum is always 0, but XLA cannot know this, so it keeps the dependency.
    zero = jnp.minimum(jnp.abs(sum(leaf.ravel()[0].astype(jnp.float32) for leaf in leaves)), 0)
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), grads)


def fenced(f: Callable[[Array], Array], x: Array) -> Array:
    """`f(x)` inside a conditional, because XLA does not fuse across its border.

    Without it, XLA fuses the gather of pixels with the reshape to a matrix. Then it finds each
    element by division and remainder, which is 5 times slower. An optimisation barrier does not
    help, because XLA removes it before it fuses. The condition is always true (NaN included), but
    XLA does not know it. Both branches take x, so XLA can merge equal conditionals. Then the
    forward pass of a layer and all derivatives share one gather of the input's columns; before,
    each gathered them again. `f` must keep the dtype.
    """
    shape = jax.eval_shape(f, x)
    always = ~(x[(0,) * x.ndim] < -jnp.inf)
    return cast(Array, lax.cond(always, f, lambda x: jnp.full(shape.shape, x[(0,) * x.ndim]), x))


def turned(a: Shaped[Array, "g m n"]) -> Shaped[Array, "g n m"]:
    """The transpose of an operand `[g, ., .]` of a product, computed before the product.

    Without the barrier, XLA folds the transpose into the product, which then has a slow form.
    """
    return lax.optimization_barrier(jnp.swapaxes(a, 1, 2))


def turned_back(a: Shaped[Array, "g m n"]) -> Shaped[Array, "g n m"]:
    """The transpose of a product `[g, ., .]`, computed after the product; see `turned`."""
    return jnp.swapaxes(lax.optimization_barrier(a), 1, 2)


def all_at_once(size: Count, reading: Callable[[], Reading]) -> Reading:
    """The result of `reading`, read once, before all operations that depend on any part of it.

    XLA copies an array that is read and overwritten, unless data dependencies put every read before
    the write. XLA may also repeat a read at each use of the value. But it leaves a branch of a
    conditional whole, so `reading` runs in a branch.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(reading))
    return lax.cond(size >= 0, reading, lambda: zeros)  # always true, but XLA cannot know


def after(
    earlier: Shaped[Array, "..."], size: Count, value: Shaped[Array, "*shape"]
) -> Shaped[Array, "*shape"]:
    """`value`, with a data dependency on `earlier` that changes no number."""
    return jnp.where(size < 0, earlier.sum().astype(value.dtype), value)
