"""GradVac, gradient vaccine (Wang et al. 2021, arXiv:2010.05874)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Int

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, needs_key, weigh_gradients
from jaxdl.types import Array, Key


def gradvac(*, tasks: int, beta: float = 0.01) -> TaskMethod:
    """The sum of the gradients, each turned towards others until they are as alike as usual.

    A gradient whose cosine with another task's is below their target gets as much of the other as
    lifts it to the target. Targets `[tasks, tasks]`, the state, start at 0, where the method is
    PCGrad, and are moving averages of the cosines seen: `(1 - beta) * target + beta * cosine`. The
    others are visited in an order drawn with `key` for each gradient (algorithm 1, with the whole
    of the given parameters as one component). `tasks` identical tasks give `tasks` times their
    gradient. A task without a gradient changes nothing, and counts as a cosine of 0.
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
    """Coefficients of one task's gradient, and the cosine with each other as met."""

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
        # Of the target's sine there is none at 1, which no average below it reaches.
        sine, target_sine = jnp.sqrt(1 - cosine**2), jnp.sqrt(jnp.maximum(1 - target**2, 1e-12))
        ratio = jnp.sqrt(square / jnp.where(met, gram[other, other], 1))
        added = ratio * (target * sine - cosine * target_sine) / target_sine
        added = jnp.where(met & (cosine < target), added, 0)
        return (coefficients.at[other].add(added), cosines.at[other].set(cosine)), None

    alone = jax.nn.one_hot(task, gram.shape[0], dtype=gram.dtype)
    return lax.scan(visit, (alone, jnp.zeros_like(alone)), order)[0]
