"""What continual learners have in common: one example after another, and never the same one again.

A method is three pure functions, `Continual`. Most are a gradient that also looks into a memory
(`RecallFn`), followed by an Optax update: `descending` makes these. What a method remembers is part
of its state, so that a stopped run goes on with the memory that it had. Nets are applied without a
key, so none has dropout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdl.grads import objective
from jaxdl.replay import rows
from jaxdl.types import (
    Array,
    Batch,
    Example,
    Grads,
    Key,
    LossFn,
    Metrics,
    Model,
    Params,
    PyTree,
    Replay,
    StepFn,
)


class ContinualState(NamedTuple):
    """All that the next step needs; `memory` is whatever the method remembers."""

    step: Array
    params: Params
    opt_state: PyTree
    memory: PyTree


class Continual(NamedTuple):
    """A continual learner as three pure functions.

    `init(key, example) -> state`: before the first example, for examples that look like this one.
    `step(key, state, batch) -> (state, metrics)`: learns from one `Example`. The metrics are those
        of the loss on it, before learning.
    `predict(state, task, x) -> y`: what it says of inputs `[n, ...]` of one task. Only a method
        with parameters of its own for each task looks at the task.
    """

    init: Callable[[Key, Example], Any]
    step: StepFn
    predict: Callable[[Any, Array, Any], Any]


class RecallFn(Protocol):
    """`(key, params, memory, example) -> (grads, metrics, memory)`: a gradient that remembers."""

    def __call__(
        self, key: Key, params: Params, memory: Any, example: Example
    ) -> tuple[Grads, Metrics, Any]: ...


def nothing(params: Params, example: Example) -> tuple[()]:
    """No memory at all."""
    del params, example
    return ()


def descending(
    model: Model,
    tx: optax.GradientTransformation,
    grad: RecallFn,
    remember: Callable[[Params, Example], Any] = nothing,
) -> Continual:
    """The learner that goes down a gradient.

    `remember(params, example) -> memory` is what it remembers before the first example.
    """

    def init(key: Key, example: Example) -> ContinualState:
        params = model.init(key, alone(example).x)
        return ContinualState(jnp.int32(0), params, tx.init(params), remember(params, example))

    def step(key: Key, state: ContinualState, batch: Example) -> tuple[ContinualState, Metrics]:
        grads, metrics, memory = grad(key, state.params, state.memory, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return ContinualState(state.step + 1, params, opt_state, memory), metrics

    def predict(state: ContinualState, task: Array, x: Any) -> Any:
        del task  # one net for all tasks
        return model.apply(state.params, x)

    return Continual(init, step, predict)


def gradient(model: Model, loss: LossFn) -> Callable[[Params, Batch], tuple[Grads, Metrics]]:
    """The gradient of the loss on a batch, and its metrics."""
    of_loss = jax.grad(objective(model, loss), has_aux=True)
    return lambda params, batch: of_loss(params, None, batch)


def alone(example: Example) -> Batch:
    """The batch of one example."""
    x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (example.x, example.y))
    return Batch(x, y)


def filled(count: Any, room: int) -> Array:
    """Weights `[room]`: 1 for the first `count` rows, 0 for those that nothing was put into yet."""
    return (jnp.arange(room) < count).astype(jnp.float32)


def recall(
    replay: Replay, key: Key, memory: Any, example: Example, count: int, batches: int = 1
) -> tuple[Batch, Any]:
    """Examples from before this one `[batches * count, ...]`, and the memory with this one in it.

    They are drawn with replacement, and weighted: of a memory of `size < count` examples the first
    `size` of each batch count, so that there are never more draws than there are examples.
    """
    sample_key, add_key = jax.random.split(key)
    weight = jnp.tile(filled(memory.size, count), batches)
    # Inside jit, for the first example comes to an empty memory, and that is no mistake.
    sample = jax.jit(replay.sample, static_argnums=2)
    drawn = rows.all_at_once(memory.size, lambda: sample(sample_key, memory, batches * count))
    # To draw first and add then, without a copy of the memory: see `Replay`.
    item = jax.tree.map(
        lambda past, now: rows.after(past, memory.size, now), drawn, stored(example)
    )
    return drawn._replace(weight=weight), replay.add(add_key, memory, item)


def stored(example: Example) -> Batch:
    """An example as memories hold it: x and y, for no method here looks at the task again."""
    x, y = jax.tree.map(jnp.asarray, (example.x, example.y))
    return Batch(x, y)
