"""Inner products of gradients, two small quadratic programs on them, and weighted sums.

Both programs are solved exactly, on the device. The method changes an active set by one member at a
time, and solves a linear system on it. It ends at the solution after finitely many steps.
First-order methods are slow if gradients differ much in length or are nearly equal. Both programs
are functions of `[n, n]`: `vmap` solves many.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from jaxdl.types import Array, Count, Grads

Active = tuple[Float[Array, " n"], Bool[Array, " n"], Bool[Array, ""], Count]
"""State of the active-set method: the point, the active members, whether it is done, changes."""


def gram(stacked: Grads) -> Float[Array, "tasks tasks"]:
    """Inner products `[tasks, tasks]` of gradients stacked `[tasks, ...]`, in float32 at least."""

    def of_leaf(leaf: Float[Array, "tasks ..."]) -> Float[Array, "tasks tasks"]:
        rows = leaf.reshape(leaf.shape[0], -1)
        dtype = jnp.promote_types(leaf.dtype, jnp.float32)
        # Full precision, because conflicts are small differences.
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

    The active-set method of Lawson and Hanson (1974, chapter 23), in the form of Bro and de Jong
    (1997) for inner products. A minimum must exist. If there are many, the result is one of them.
    """
    n = b.shape[0]
    diagonal = jnp.diagonal(q)
    # Unit diagonal, so that lengths of gradients do not enter the condition of the system.
    scale = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    q, b = q * jnp.outer(scale, scale), b * scale
    eps = float(np.finfo(q.dtype).eps)

    def unfinished(carry: Active) -> Bool[Array, ""]:
        _, _, done, count = carry
        # Lawson and Hanson's limit, because rounding may add and remove a member for ever.
        return ~done & (count < 3 * n + 10)

    def change(carry: Active) -> Active:
        x, active, _, count = carry
        masked = jnp.where(jnp.outer(active, active), q, 0)
        ridge = jnp.where(active, n * eps, 1)
        s = jnp.linalg.solve(masked + jnp.diag(ridge), jnp.where(active, b, 0))
        s = jnp.where(active, s, 0)

        # If the solution on the active set is positive, x moves there. The coordinate along which
        # the objective falls most becomes active.
        feasible = jnp.all(s > 0, where=active)
        slope = b - q @ s
        noise = 4 * n * eps * (jnp.abs(b) + jnp.abs(q) @ jnp.abs(s))
        falls = jnp.where(~active & (slope > noise), slope, 0)
        entered = active | (jnp.arange(n) == jnp.argmax(falls))

        # If not, x moves towards it until a first coordinate is zero. This one becomes inactive.
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

    `gram` `[n, n]` holds the inner products of the vectors. The function drops the condition that
    weights add up to 1. The weights that minimise `|sum|^2 + s^2 (total - 1)^2` are a multiple of
    the convex ones, for any s (by the conditions of Karush, Kuhn and Tucker). The length of the
    shortest vector is a good s, because then the total is in `[1/2, 1]`.
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

    A zero vector counts as a vector of length 1 that is orthogonal to all others.
    """
    squares = jnp.diagonal(gram)
    none = squares <= 0
    lengths = jnp.sqrt(jnp.where(none, 1, squares))
    cosines = gram / jnp.outer(lengths, lengths)
    # The row of a zero vector is zero already, so only its diagonal is set.
    return jnp.where(jnp.diag(none), 1, cosines), lengths
