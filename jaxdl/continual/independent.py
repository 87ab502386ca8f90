"""Independent nets, one per task (Lopez-Paz, Ranzato 2017, https://arxiv.org/abs/1706.08840)."""

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
    """One net for each of `tasks` tasks, chosen by the task number.

    As in the paper, a net begins as a copy of the previous task's net. So nothing is forgotten if
    each task comes once; a task that returns begins anew from the net of the task before it. The
    first net, and nets without an example so far, have random parameters. `memory` is the task
    number of the last example. Tasks are counted from 0; see `jaxdl.continual.base`.
    """
    grad = gradient(model, loss)

    def init(key: Key, example: Example) -> ContinualState:
        x = alone(example).x
        params = jax.vmap(lambda key: model.init(key, x))(jax.random.split(key, tasks))
        return ContinualState(jnp.int32(0), params, jax.vmap(tx.init)(params), jnp.int32(-1))

    def step(key: Key, state: ContinualState, batch: Example) -> tuple[ContinualState, Metrics]:
        del key  # nothing is drawn
        (task, good), last = in_range(batch.task, tasks), state.memory
        # A returning task also starts from the previous task's net, as a new task does.
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
