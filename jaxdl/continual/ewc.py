"""EWC, elastic weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.continual.base import Continual, alone, descending, filled, gradient, stored
from jaxdl.replay import rows
from jaxdl.types import Array, Batch, Example, Grads, Key, LossFn, Metrics, Model, Params


class Consolidated(NamedTuple):
    """The penalty for finished tasks, and the first `kept` examples of the current task.

    The sum over finished tasks of `F_t (p - p_t)^2` is `importance * (p - anchor)^2` plus a
    constant. `importance` is the sum of the `F_t`, and `anchor` is the mean of the `p_t`, weighted
    by the `F_t`. So any number of tasks takes the memory of one.
    """

    importance: Params
    anchor: Params
    items: Batch
    kept: Array
    task: Array


def ewc(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    *,
    strength: float,
    samples: int = 10,
    of_mean: bool = False,
) -> Continual:
    """Adds `strength * F_t (p - p_t)^2`, summed over parameters, for each finished task t.

    A task is finished when an example of another task comes. Then `p_t` are the parameters, and
    `F_t` is the diagonal of the empirical Fisher information: the mean squared gradient of the loss
    of one example, over the first `samples` examples of the task.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> from jaxdl.types import Example
    >>> line = jaxdl.Model(lambda key, x: jnp.zeros(()), lambda p, x, key=None, weight=None: p * x)
    >>> learner = jaxdl.ewc(line, jaxdl.mean_squared_error, optax.sgd(0.25), strength=0.25)
    >>> of_task = lambda task, y: Example(jnp.ones(1), jnp.full(1, y), jnp.int32(task))
    >>> key, step = jax.random.key(0), jax.jit(learner.step)
    >>> state = learner.init(key, of_task(0, 2.0))
    >>> for example in [of_task(0, 2.0), of_task(1, 3.0), of_task(1, 3.0)]:
    ...     state, _ = step(key, state, example)
    >>> state.memory.anchor.item(), state.memory.importance.item()  # F = (2 * (1 - 2)) ** 2
    (1.0, 4.0)
    >>> state.params.item()  # half way from the anchor to 3: both forces are equal
    2.0

    Args:
        strength: at least 0; 0 is plain training.
        samples: how many examples per task are kept until the task is finished, at least 1.
        of_mean: square the gradient of the mean loss instead. For unrelated gradients, the result
            is `samples` times smaller. GEM's code does this, so set it to use the published
            strengths of GEM and MER.

    Raises:
        InputError: at `init`, if `samples` is below 1.
    """
    grad_of = gradient(model, loss)

    def remember(params: Params, example: Example) -> Consolidated:
        zeros = jax.tree.map(jnp.zeros_like, params)
        items = rows.empty(stored(example), samples)
        anchor = jax.tree.map(jnp.copy, zeros)  # to be donated apart
        return Consolidated(anchor, zeros, items, jnp.int32(0), jnp.int32(-1))

    def squared(params: Params, batch: Batch) -> Grads:
        return jax.tree.map(jnp.square, grad_of(params, batch)[0])

    def fisher(params: Params, memory: Consolidated) -> Grads:
        weight = filled(memory.kept, samples)
        if of_mean:
            return squared(params, memory.items._replace(weight=weight))
        each = jax.tree.map(lambda leaf: leaf[:, None], memory.items)
        found = jax.vmap(squared, (None, 0))(params, each)
        return jax.tree.map(lambda leaf: jnp.tensordot(weight, leaf, 1) / jnp.sum(weight), found)

    def consolidate(params: Params, memory: Consolidated) -> Consolidated:
        new = fisher(params, memory)
        importance = jax.tree.map(jnp.add, memory.importance, new)

        def towards(anchor: Array, here: Array, new: Array, total: Array) -> Array:
            return anchor + jnp.where(total > 0, new / total, 0) * (here - anchor)

        anchor = jax.tree.map(towards, memory.anchor, params, new, importance)
        return memory._replace(importance=importance, anchor=anchor, kept=jnp.int32(0))

    def grad(
        key: Key, params: Params, memory: Consolidated, example: Example
    ) -> tuple[Grads, Metrics, Consolidated]:
        del key  # nothing is drawn
        memory = lax.cond(
            (example.task != memory.task) & (memory.kept > 0),
            lambda: consolidate(params, memory),
            lambda: memory,
        )
        memory = memory._replace(
            # In a full memory, `kept` is past the end, and nothing is written.
            items=rows.write(memory.items, memory.kept[None], alone(example)),
            kept=jnp.minimum(memory.kept + 1, samples),
            task=jnp.asarray(example.task),
        )
        grads, metrics = grad_of(params, alone(example))

        def held(grad: Array, here: Array, importance: Array, anchor: Array) -> Array:
            return grad + 2 * strength * importance * (here - anchor)

        held_grads = jax.tree.map(held, grads, params, memory.importance, memory.anchor)
        return held_grads, metrics, memory

    return descending(model, tx, grad, remember)
