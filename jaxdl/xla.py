"""What XLA must be told, so that a program is as fast as its arithmetic."""

import jax
import jax.numpy as jnp

from jaxdl.types import Grads

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
