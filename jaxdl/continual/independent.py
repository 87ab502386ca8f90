"""Independent nets, one a task, as in GEM (Lopez-Paz, Ranzato 2017, https://arxiv.org/abs/1706.08840)."""

import jax
import jax.numpy as jnp
import optax

from jaxdl.continual.base import (
    Continual,
    ContinualState,
    alone,
    gradient,
    in_range,
    spoilt_unless,
)
from jaxdl.types import Array, Example, Key, LossFn, Metrics, Model, PyTree


def independent(
    model: Model, loss: LossFn, tx: optax.GradientTransformation, *, tasks: int
) -> Continual:
    """A net for each of so many tasks, which must be told the task, and forgets nothing.

    A net begins as a copy of the net of the task before, as in the paper; the first, and all that
    had no example yet, as they were drawn. `memory` is the number of the last example's task. Tasks
    are counted from 0: see `jaxdl.continual.base`.
    """
    grad = gradient(model, loss)

    def init(key: Key, example: Example) -> ContinualState:
        x = alone(example).x
        params = jax.vmap(lambda key: model.init(key, x))(jax.random.split(key, tasks))
        return ContinualState(jnp.int32(0), params, jax.vmap(tx.init)(params), jnp.int32(-1))

    def step(key: Key, state: ContinualState, batch: Example) -> tuple[ContinualState, Metrics]:
        del key  # nothing is drawn
        (task, good), last = in_range(batch.task, tasks), state.memory
        # A task that comes back takes the net of the task before too, as one that is new.
        start = jax.tree.map(lambda leaf: leaf[jnp.where(last < 0, task, last)], state.params)
        opt_state = jax.tree.map(lambda leaf: leaf[task], state.opt_state)
        grads, metrics = spoilt_unless(good, grad(start, alone(batch)))
        updates, opt_state = tx.update(grads, opt_state, start)
        own = optax.apply_updates(start, updates), opt_state
        params, opt_state = jax.tree.map(
            lambda leaf, new: leaf.at[task].set(new), (state.params, state.opt_state), own
        )
        return ContinualState(state.step + 1, params, opt_state, task), metrics

    def predict(state: ContinualState, task: Array, x: PyTree) -> PyTree:
        task, good = in_range(task, tasks)
        own = jax.tree.map(lambda leaf: leaf[task], state.params)
        return spoilt_unless(good, model.apply(own, x))

    return Continual(init, step, predict)
