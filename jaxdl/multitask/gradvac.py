"""GradVac, gradient vaccine (Wang et al. 2021, arXiv:2010.05874)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Int

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, needs_key, weigh_gradients
from jaxdl.types import Array, Key


def gradvac(*, tasks: int, beta: float = 0.01) -> TaskMethod:
    """The sum of the gradients, after each pair is moved to at least its usual cosine.

    Each pair of tasks has a target for the cosine of their gradients. If the cosine is below it,
    the gradient of the other task is added, by as much as lifts the cosine to the target. Targets
    `[tasks, tasks]` are the state. They start at 0, where the method equals PCGrad, and are moving
    averages of the cosines: `(1 - beta) * target + beta * cosine`. Each gradient visits the others
    in an order drawn with `key` (algorithm 1, with all given parameters as one component). `tasks`
    identical tasks give `tasks` times their gradient. A task with gradient zero changes nothing,
    and its cosines count as 0.
    """

    def weigh(
        state: Gram, gram: Gram, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, Gram]:
        del losses
        orders = jax.vmap(jax.random.permutation, (0, None))(
            jax.random.split(needs_key(key, "gradvac"), tasks), tasks
        )
        turned, cosines = jax.vmap(_vaccinated, (None, 0, 0, 0))(
            gram, jnp.arange(tasks), orders, state
        )
        moved = (1 - beta) * state + beta * cosines.astype(state.dtype)
        return jnp.sum(turned, axis=0), moved

    return weigh_gradients(weigh, lambda: jnp.zeros((tasks, tasks)), tasks=tasks)


def _vaccinated(
    gram: Gram, task: Int[Array, ""], order: Int[Array, " tasks"], targets: PerTask
) -> tuple[PerTask, PerTask]:
    """Coefficients of one task's gradient, and its cosine with each other task when visited."""

    def visit(
        carry: tuple[PerTask, PerTask], other: Int[Array, ""]
    ) -> tuple[tuple[PerTask, PerTask], None]:
        coefficients, cosines = carry
        product = coefficients @ gram[other]
        square = coefficients @ gram @ coefficients
        both = square * gram[other, other]
        met = (other != task) & (both > 0)
        cosine = jnp.where(met, product * lax.rsqrt(jnp.where(met, both, 1)), 0)
        cosine = jnp.clip(cosine, -1, 1)
        target = targets[other]
        # The sine of a target of 1 is 0 and would be a divisor, so 1e-12 bounds its square.
        sine, target_sine = jnp.sqrt(1 - cosine**2), jnp.sqrt(jnp.maximum(1 - target**2, 1e-12))
        ratio = jnp.sqrt(square / jnp.where(met, gram[other, other], 1))
        added = ratio * (target * sine - cosine * target_sine) / target_sine
        added = jnp.where(met & (cosine < target), added, 0)
        return (coefficients.at[other].add(added), cosines.at[other].set(cosine)), None

    alone = jax.nn.one_hot(task, gram.shape[0], dtype=gram.dtype)
    return lax.scan(visit, (alone, jnp.zeros_like(alone)), order)[0]
