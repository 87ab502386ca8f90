"""GEM, gradient episodic memory (Lopez-Paz, Ranzato 2017, https://arxiv.org/abs/1706.08840)."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.continual import episodic
from jaxdl.continual.base import Continual, alone, descending, filled, gradient
from jaxdl.continual.episodic import Episodic
from jaxdl.optim.qp import gram, nonnegative, weighted_sum
from jaxdl.types import Array, Batch, Example, Grads, Key, LossFn, Metrics, Model, Params


def gem(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    *,
    tasks: int,
    memory_per_task: int,
    margin: float = 0.0,
) -> Continual:
    """Descent that raises the loss of no other task, on `memory_per_task` examples per task.

    See `project` for the margin. A step computes one gradient for each other task with examples.
    The `tasks` are counted from 0; see `jaxdl.continual.base`.
    """
    grad_of = gradient(model, loss)

    def others(params: Params, memory: Episodic, task: Array) -> Grads:
        """Gradients `[tasks, ...]`; zeros for this task and for tasks without examples."""
        sizes = episodic.sizes_of(memory).at[task].set(0)

        def of_task(each: tuple[Batch, Array]) -> Grads:
            batch, size = each
            weighted = batch._replace(weight=filled(size, memory_per_task))
            return lax.cond(
                size > 0,
                lambda: grad_of(params, weighted)[0],
                lambda: jax.tree.map(jnp.zeros_like, params),
            )

        apart = jax.tree.map(
            lambda leaf: leaf.reshape(tasks, memory_per_task, *leaf.shape[1:]), memory.items
        )
        return lax.map(of_task, (apart, sizes))

    def grad(
        key: Key, params: Params, memory: Episodic, example: Example
    ) -> tuple[Grads, Metrics, Episodic]:
        del key  # nothing is drawn: the gradients use the whole memory
        memory = episodic.remember(memory, example)
        grads, metrics = grad_of(params, alone(example))
        return project(grads, others(params, memory, example.task), margin), metrics, memory

    def remember(params: Params, example: Example) -> Episodic:
        del params  # the memory holds only examples
        return episodic.empty(example, tasks, memory_per_task)

    return descending(model, tx, grad, remember, tasks=tasks)


def project(grads: Grads, others: Grads, margin: float = 0.0) -> Grads:
    """The nearest gradient whose inner product with each of `others` `[n, ...]` is not negative.

    It is `grads` plus a weighted sum of `others`; the weights solve a quadratic program. `margin`
    is the least value of each weight. A margin above 0 favours old tasks. As in the authors' code,
    the margin has no effect if no inner product is negative.
    """
    stacked = jax.tree.map(lambda old, new: jnp.concatenate([old, new[None]]), others, grads)
    products = gram(stacked)
    between, along = products[:-1, :-1], products[:-1, -1]
    # The weights are `margin + u` with `u >= 0`; solve for u.
    weights = margin + nonnegative(between, -(along + margin * jnp.sum(between, axis=1)))
    weights = jnp.where(jnp.any(along < 0), weights, 0)
    return weighted_sum(jnp.append(weights, 1), stacked)
