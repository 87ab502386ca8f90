"""Nash-MTL (Navon et al. 2022, arXiv:2202.01017)."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram
from jaxdl.optim.qp import correlations
from jaxdl.types import Array, Count, Scalar

Newton = tuple[PerTask, Scalar, Count]
"""Weights in units of the gradients' lengths, the Newton decrement, and steps taken."""


def nash() -> TaskMethod:
    """The bargaining solution: the sum whose weights `a > 0` solve `gram @ a = 1 / a`.

    The scale of a task does not matter. The length of the sum is the square root of the number of
    tasks with a gradient above zero, whatever the lengths of these. So decay the learning rate, or
    chain an optimiser that normalises, as Adam does. A task with gradient zero takes no part: the
    sum is that of the other tasks alone. If the gradients have no common descent direction, there
    is no solution, and the weights stay bounded.

    The paper solves the equations by a sequence of convex problems. Their solution is also the
    minimum of `a @ gram @ a / 2 - sum(log(a))`. This function is self-concordant, so damped Newton
    steps reach its minimum from every start.
    """
    return weigh_gram(_bargain)


def _bargain(gram: Gram) -> PerTask:
    cosines, lengths = correlations(gram)
    tasks = len(lengths)
    eps = float(np.finfo(gram.dtype).eps)
    # The diagonal makes sure of a minimum, even if a positive sum of gradients is zero.
    cosines = cosines + tasks * eps * jnp.eye(tasks, dtype=gram.dtype)

    def unfinished(carry: Newton) -> Bool[Array, ""]:
        _, decrement, count = carry
        return (decrement > 10 * eps**0.5) & (count < 100)

    def newton(carry: Newton) -> Newton:
        a, _, count = carry
        slope = cosines @ a - 1 / a
        # Newton in units of a, because there the Hessian is well conditioned.
        hessian = cosines * jnp.outer(a, a) + jnp.eye(tasks, dtype=gram.dtype)
        step = jnp.linalg.solve(hessian, a * slope)
        decrement = jnp.sqrt(jnp.maximum(step @ (a * slope), 0))
        damped = jnp.where(decrement > 0.25, 1 / (1 + decrement), 1)
        return a * (1 - damped * step), decrement, count + 1

    start = jnp.ones_like(lengths), jnp.asarray(jnp.inf, gram.dtype), jnp.int32(0)
    return lax.while_loop(unfinished, newton, start)[0] / lengths
