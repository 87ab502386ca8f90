"""CAGrad, conflict-averse gradient descent (Liu et al. 2021, arXiv:2110.14048)."""

import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError
from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram
from jaxdl.optim.qp import min_norm
from jaxdl.types import Array, Scalar

HALVINGS = 26
"""Of the interval that holds the multiplier: more than float32 tells apart."""
SHORT = 1e-4
"""Of the longest gradient: what is shorter counts as none, for the multiplier would be smaller."""


def cagrad(*, c: float = 0.5) -> TaskMethod:
    """The direction that serves the worst-off task best, within `c` lengths of the mean gradient.

    It maximises the smallest inner product with a task's gradient among all `d` with
    `|d - mean| <= c * |mean|`; c is in `[0, 1)`, and 0 is the mean. As in the paper there is no
    rescaling: identical tasks give `1 + c` times their gradient. A task without a gradient, or with
    one 10,000 times shorter than the longest, counts in the mean alone: nothing serves it.

    At the solution `d` is the mean plus `1 / m` times a convex combination of the gradients, and
    `m * d` is the shortest vector in the convex hull of the gradients plus m times their mean. The
    multiplier m is found by bisection: the ball is left the further, the smaller it is.

    Raises:
        InputError: if c is not in `[0, 1)`.
    """
    if not 0 <= c < 1:
        raise InputError(f"cagrad needs c in [0, 1), not {c}")

    def weigh(gram: Gram) -> PerTask:
        tasks, squares = gram.shape[0], jnp.diagonal(gram)
        mean_products = jnp.mean(gram, axis=0)
        mean_square = jnp.mean(mean_products)
        radius = c * jnp.sqrt(jnp.maximum(mean_square, 0))
        # In place of a gradient that is none the longest once more, which changes no convex hull.
        longest = jnp.argmax(squares)
        short = squares <= SHORT**2 * squares[longest]
        shown = jnp.where(short, longest, jnp.arange(tasks))
        gram, mean_products = gram[shown][:, shown], mean_products[shown]
        shifts = mean_products[:, None] + mean_products[None, :]

        def lengths(weights: PerTask) -> Scalar:
            return jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0))

        def convex(multiplier: Scalar) -> PerTask:
            return min_norm(gram + multiplier * shifts + multiplier**2 * mean_square)

        # Of the convex combinations the shortest and the longest bound the multiplier.
        safe = jnp.where(radius > 0, radius, 1)
        high = jnp.sqrt(jnp.max(squares)) / safe
        high = jnp.where(high > 0, high, 1)
        low = jnp.maximum(lengths(min_norm(gram)) / safe, SHORT * high)

        def halve(_: Array, bounds: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
            low, high = bounds
            middle = jnp.sqrt(low * high)
            outside = lengths(convex(middle)) > middle * radius
            return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

        low, high = lax.fori_loop(0, HALVINGS, halve, (low, high))
        weights = convex(high)
        length = lengths(weights)
        added = jnp.where(length > 0, radius / jnp.where(length > 0, length, 1), 0) * weights
        return jnp.full_like(added, 1 / tasks).at[shown].add(added)

    return weigh_gram(weigh)
