"""PCGrad, projecting conflicting gradients (Yu et al. 2020, arXiv:2001.06782)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Int

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, needs_key, weigh_gradients
from jaxdl.types import Array, Key, PyTree


def pcgrad() -> TaskMethod:
    """The sum of the gradients, each without its components that conflict with other tasks.

    Two gradients conflict if their inner product is negative. Then a gradient loses its component
    along the other. Each gradient visits the other tasks one after another, in an order drawn with
    `key`. Algorithm 1 takes a sum, so `tasks` identical tasks give `tasks` times their gradient,
    and a task with gradient zero changes nothing.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> method, key = jaxdl.pcgrad(), jax.random.key(0)
    >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}  # [tasks, ...]; the two conflict
    >>> found, _ = jax.jit(method.update)(grads, method.init(None), key=key)
    >>> [round(x, 3) for x in found["w"].tolist()]  # (1, 0) becomes (0.5, 0.5), (-1, 1) (0, 1)
    [0.5, 1.5]

    Raises:
        InputError: when tracing, without a key, or if gradients are not stacked `[tasks, ...]`.
    """

    def weigh(
        state: PyTree, gram: Gram, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, PyTree]:
        del losses
        tasks = gram.shape[0]
        orders = jax.vmap(jax.random.permutation, (0, None))(
            jax.random.split(needs_key(key, "pcgrad"), tasks), tasks
        )
        projected = jax.vmap(_without_conflict, (None, 0, 0))(gram, jnp.arange(tasks), orders)
        return jnp.sum(projected, axis=0), state

    return weigh_gradients(weigh)


def _without_conflict(gram: Gram, task: Int[Array, ""], order: Int[Array, " tasks"]) -> PerTask:
    """Coefficients of one task's gradient after its projections."""

    def visit(coefficients: PerTask, other: Int[Array, ""]) -> tuple[PerTask, None]:
        product = coefficients @ gram[other]
        conflict = (product < 0) & (other != task)
        square = jnp.where(conflict, gram[other, other], 1)
        # A negative product with a gradient of zero comes from rounding, so nothing is removed.
        removed = jnp.where(conflict & (square > 0), product / jnp.where(square > 0, square, 1), 0)
        return coefficients.at[other].add(-removed), None

    alone = jax.nn.one_hot(task, gram.shape[0], dtype=gram.dtype)
    return lax.scan(visit, alone, order)[0]
