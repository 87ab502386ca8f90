"""CAGrad, conflict-averse gradient descent (Liu et al. 2021, arXiv:2110.14048)."""

import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError
from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram
from jaxdl.optim.qp import min_norm
from jaxdl.types import Array, Scalar

HALVINGS = 26
"""Halvings of the interval that holds the multiplier. More would not change it in float32."""
SHORT = 1e-4
"""A gradient shorter than this share of the longest counts as zero, because the bisection does not
reach a multiplier that small."""


def cagrad(*, c: float = 0.5) -> TaskMethod:
    """The best direction for the task that improves least, in a ball around the mean gradient.

    It maximises the smallest inner product with a task's gradient, among all `d` with
    `|d - mean| <= c * |mean|`. c is in `[0, 1)`, and 0 gives the mean. As in the paper there is no
    rescaling: identical tasks give `1 + c` times their gradient. A task whose gradient is zero, or
    10,000 times shorter than the longest, counts in the mean alone.

    At the solution `d` is the mean plus `1 / m` times a convex combination of the gradients, and
    `m * d` is the shortest vector in the convex hull of the gradients plus m times their mean.
    Bisection finds the multiplier m: the smaller m is, the further `d` is outside of the ball.

    Raises:
        InputError: if c is not in `[0, 1)`.
    """
    if not 0 <= c < 1:
        raise InputError(f"cagrad needs c in [0, 1), not {c}: choose 0, the mean, or more")

    def weigh(gram: Gram) -> PerTask:
        tasks, squares = gram.shape[0], jnp.diagonal(gram)
        mean_products = jnp.mean(gram, axis=0)
        mean_square = jnp.mean(mean_products)
        radius = c * jnp.sqrt(jnp.maximum(mean_square, 0))
        # The longest gradient replaces each short one, so the convex hull is that of the others.
        longest = jnp.argmax(squares)
        short = squares <= SHORT**2 * squares[longest]
        shown = jnp.where(short, longest, jnp.arange(tasks))
        gram, mean_products = gram[shown][:, shown], mean_products[shown]
        shifts = mean_products[:, None] + mean_products[None, :]

        def lengths(weights: PerTask) -> Scalar:
            return jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0))

        def convex(multiplier: Scalar) -> PerTask:
            return min_norm(gram + multiplier * shifts + multiplier**2 * mean_square)

        # The lengths of the shortest and the longest convex combination bound the multiplier.
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
