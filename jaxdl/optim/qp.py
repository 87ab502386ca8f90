"""Inner products of gradients, two small quadratic programs on them, and sums by the solutions.

Both programs are solved exactly, on the device. An active set is changed one member at a time, and
on it a linear system is solved: that ends after finitely many steps at the solution itself, where
first-order methods crawl if gradients differ much in length or nearly agree. Both are functions of
`[n, n]`; `vmap` solves many.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from jaxdl.types import Array, Count, Grads

Active = tuple[Float[Array, " n"], Bool[Array, " n"], Bool[Array, ""], Count]
"""Of an active-set method: the point, which members are active, whether it is done, changes."""


def gram(stacked: Grads) -> Float[Array, "tasks tasks"]:
    """Inner products `[tasks, tasks]` of gradients stacked `[tasks, ...]`, in float32 at least."""

    def of_leaf(leaf: Float[Array, "tasks ..."]) -> Float[Array, "tasks tasks"]:
        rows = leaf.reshape(leaf.shape[0], -1)
        dtype = jnp.promote_types(leaf.dtype, jnp.float32)
        # At full precision: conflicts are found in small differences.
        return jnp.matmul(
            rows, rows.T, precision=lax.Precision.HIGHEST, preferred_element_type=dtype
        )

    return functools.reduce(jnp.add, map(of_leaf, jax.tree.leaves(stacked)))


def weighted_sum(weights: Float[Array, " tasks"], stacked: Grads) -> Grads:
    """The sum over tasks of `weights[t] * stacked[t]`, in the dtypes of the gradients."""

    def of_leaf(leaf: Float[Array, " tasks *shape"]) -> Float[Array, "*shape"]:
        dtype = jnp.promote_types(leaf.dtype, weights.dtype)
        summed = jnp.tensordot(
            weights.astype(dtype), leaf.astype(dtype), axes=1, precision=lax.Precision.HIGHEST
        )
        return summed.astype(leaf.dtype)

    return jax.tree.map(of_leaf, stacked)


def nonnegative(q: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """The `x >= 0` `[n]` that minimises `x q x / 2 - b x`, for q `[n, n]` positive semidefinite.

    The active-set method of Lawson and Hanson (1974, chapter 23), which on inner products is that
    of Bro and de Jong (1997). The minimum must be attained. If it is attained at many places, one
    of them is found.
    """
    n = b.shape[0]
    diagonal = jnp.diagonal(q)
    # Unit diagonal, so that lengths of gradients do not enter the condition of the system.
    scale = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    q, b = q * jnp.outer(scale, scale), b * scale
    eps = float(np.finfo(q.dtype).eps)

    def unfinished(carry: Active) -> Bool[Array, ""]:
        _, _, done, count = carry
        # Lawson and Hanson's cap; rounding may let a member come and go for ever.
        return ~done & (count < 3 * n + 10)

    def change(carry: Active) -> Active:
        x, active, _, count = carry
        masked = jnp.where(jnp.outer(active, active), q, 0)
        ridge = jnp.where(active, n * eps, 1)
        s = jnp.linalg.solve(masked + jnp.diag(ridge), jnp.where(active, b, 0))
        s = jnp.where(active, s, 0)

        # Where the solution on the active set is positive it is taken, and the coordinate along
        # which the objective falls most becomes active.
        feasible = jnp.all(s > 0, where=active)
        slope = b - q @ s
        noise = 4 * n * eps * (jnp.abs(b) + jnp.abs(q) @ jnp.abs(s))
        falls = jnp.where(~active & (slope > noise), slope, 0)
        entered = active | (jnp.arange(n) == jnp.argmax(falls))

        # Otherwise one goes towards it until the first coordinate is zero, which leaves.
        blocks = active & (s <= 0)
        ratios = jnp.where(blocks, x / jnp.where(blocks, x - s, 1), jnp.inf)
        ratios = jnp.where(blocks & (x <= 0), 0, ratios)
        first = jnp.argmin(ratios)
        step = jnp.where(feasible, 0, ratios[first])
        moved = jnp.maximum(x + step * (s - x), 0)
        left = active & (jnp.arange(n) != first) & ~(blocks & (moved <= 0))

        done = feasible & ~jnp.any(falls > 0)
        active = jnp.where(feasible, jnp.where(done, active, entered), left)
        x = jnp.where(feasible, s, jnp.where(left, moved, 0))
        return x, active, done, count + 1

    start = jnp.zeros_like(b), jnp.zeros(n, bool), jnp.bool_(False), jnp.int32(0)
    return lax.while_loop(unfinished, change, start)[0] * scale


def min_norm(gram: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Convex weights `[n]` of the shortest vector in the convex hull of n vectors.

    `gram` `[n, n]` holds their inner products. Without the sum fixed, the weights that minimise
    `|sum|^2 + s^2 (total - 1)^2` are a multiple of them, for any s (by the conditions of Karush,
    Kuhn and Tucker). The shortest of the vectors is a good s: the total then lies in `[1/2, 1]`.
    """
    squares = jnp.diagonal(gram)
    largest = jnp.max(squares)
    gram = gram / jnp.where(largest > 0, largest, 1)
    shortest = jnp.maximum(jnp.min(jnp.diagonal(gram)), float(np.finfo(gram.dtype).eps) ** 2)
    weights = nonnegative(gram + shortest, jnp.full_like(squares, shortest))
    return weights / jnp.sum(weights)


def correlations(
    gram: Float[Array, "n n"],
) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """Inner products of unit vectors `[n, n]`, and the lengths `[n]` of the given ones.

    A zero vector counts as one that is orthogonal to all others, and of length 1.
    """
    squares = jnp.diagonal(gram)
    none = squares <= 0
    lengths = jnp.sqrt(jnp.where(none, 1, squares))
    cosines = gram / jnp.outer(lengths, lengths)
    # Its own row is zero already.
    return jnp.where(jnp.diag(none), 1, cosines), lengths
