"""A-GEM, averaged gradient episodic memory (Chaudhry et al. 2019, https://arxiv.org/abs/1812.00420)."""

import jax
import jax.numpy as jnp
import optax

from jaxdl.continual import episodic
from jaxdl.continual.base import Continual, alone, descending, gradient
from jaxdl.continual.episodic import Episodic
from jaxdl.types import Example, Grads, Key, LossFn, Metrics, Model, Params


def agem(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    *,
    tasks: int,
    memory_per_task: int,
    replay_batch_size: int,
) -> Continual:
    """Descent that does not raise the mean loss of `replay_batch_size` examples of other tasks.

    Each step draws these examples from a memory of `memory_per_task` examples per task; see
    `project`. Tasks are counted from 0; see `jaxdl.continual.base`.
    """
    grad_of = gradient(model, loss)

    def grad(
        key: Key, params: Params, memory: Episodic, example: Example
    ) -> tuple[Grads, Metrics, Episodic]:
        memory = episodic.remember(memory, example)
        past = episodic.draw_others(key, memory, example.task, replay_batch_size)
        grads, metrics = grad_of(params, alone(example))
        return project(grads, grad_of(params, past)[0]), metrics, memory

    def remember(params: Params, example: Example) -> Episodic:
        del params  # the memory holds only examples
        return episodic.empty(example, tasks, memory_per_task)

    return descending(model, tx, grad, remember, tasks=tasks)


def project(grads: Grads, reference: Grads) -> Grads:
    """The nearest gradient whose inner product with `reference` is not negative.

    A gradient that agrees with the reference does not change. With a reference of zeros, no
    gradient changes.
    """
    product = optax.tree.vdot(grads, reference)
    square = optax.tree.vdot(reference, reference)
    by = jnp.where(square > 0, jnp.minimum(product, 0) / jnp.where(square > 0, square, 1), 0)
    return jax.tree.map(lambda grad, other: grad - by * other, grads, reference)
