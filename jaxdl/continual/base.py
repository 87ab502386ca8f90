"""Shared parts of continual learners, which see each example only once, one after another.

A method is three pure functions, `Continual`. Most methods are a gradient that also reads a memory
(`RecallFn`), followed by an Optax update; `descending` makes these. The memory is part of the
state, so a stopped run goes on with its memory. Nets get no key, so they have no dropout.

A learner with the argument `tasks` counts tasks from 0. A task number outside `[0, tasks)` raises
InputError if its value is known. Inside jit the value is unknown, and indexing accepts any number.
Then the metrics and the gradient of the step, or the predictions, are NaN, which ends a run.
`check_stream` checks all task numbers of a stream before training.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxdl.errors import InputError
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
from jaxdl.xla import after, all_at_once

Tree = TypeVar("Tree")


class ContinualState(NamedTuple):
    """All that the next step needs; the method decides what `memory` is."""

    step: Array
    params: Params
    opt_state: PyTree
    memory: PyTree


class Continual(NamedTuple):
    """A continual learner as three pure functions.

    `init(key, example) -> state`: the state before the first example. Later examples have the
        shapes and types of `example`.
    `step(key, state, batch) -> (state, metrics)`: learns from one `Example`. The metrics are those
        of the loss on this example, before the update.
    `predict(state, task, x) -> y`: predictions for inputs `[n, ...]` of one task. Only methods with
        separate parameters per task use the task.
    """

    init: Callable[[Key, Example], PyTree]
    step: StepFn
    predict: Callable[[PyTree, Array, PyTree], PyTree]


class RecallFn(Protocol):
    """`(key, params, memory, example) -> (grads, metrics, memory)`: a gradient with a memory."""

    def __call__(
        self, key: Key, params: Params, memory: PyTree, example: Example
    ) -> tuple[Grads, Metrics, PyTree]: ...


def nothing(params: Params, example: Example) -> tuple[()]:
    """An empty memory, for methods that remember nothing."""
    del params, example
    return ()


def descending(
    model: Model,
    tx: optax.GradientTransformation,
    grad: RecallFn,
    remember: Callable[[Params, Example], PyTree] = nothing,
    *,
    tasks: int | None = None,
) -> Continual:
    """The learner that descends along `grad`.

    `remember(params, example) -> memory` makes the memory before the first example. `tasks` is the
    number of tasks, for a memory with a part per task; see the module docstring. None allows any
    task number.
    """

    def init(key: Key, example: Example) -> ContinualState:
        params = model.init(key, alone(example).x)
        return ContinualState(jnp.int32(0), params, tx.init(params), remember(params, example))

    def step(key: Key, state: ContinualState, batch: Example) -> tuple[ContinualState, Metrics]:
        task, good = (batch.task, True) if tasks is None else in_range(batch.task, tasks)
        found = grad(key, state.params, state.memory, batch._replace(task=task))
        grads, metrics = spoilt_unless(good, found[:2])
        memory = found[2]
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return ContinualState(state.step + 1, params, opt_state, memory), metrics

    def predict(state: ContinualState, task: Array, x: PyTree) -> PyTree:
        del task  # one net for all tasks
        return model.apply(state.params, x)

    return Continual(init, step, predict)


def in_range(task: Array | int, tasks: int) -> tuple[Array, Array]:
    """A task number, and whether it is in `[0, tasks)`; a number out of range becomes 0.

    The results for a number out of range must be set to NaN; see `spoilt_unless`.

    Raises:
        InputError: if the value of the number is known, and out of range.
    """
    if (here := rows.known(task)) is not None:
        _refuse_outside(here, tasks, "")
    good = (task >= 0) & (task < tasks)
    return jnp.where(good, task, 0), jnp.asarray(good)


def spoilt_unless(good: Array | bool, tree: Tree) -> Tree:
    """The tree if `good`; else the tree with NaN for all floating-point numbers."""

    def of_leaf(leaf: Array) -> Array:
        inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jnp.where(good, leaf, jnp.nan) if inexact else leaf

    return tree if good is True else jax.tree.map(of_leaf, tree)


def check_stream(stream: Callable[..., Example], keys: Key, steps: int, tasks: int) -> None:
    """Refuses a stream for `loop` with a task number outside `[0, tasks)` in its first `steps`.

    It computes only the task numbers of the stream, for all steps and all run keys `[seeds]`.

    Raises:
        InputError: naming the first such step, and the number.
    """

    @jax.jit
    def numbers(stream: Callable[..., Example], keys: Key) -> Array:
        def at(step: Array) -> Array:
            return jax.vmap(lambda key: stream(key, step).task)(keys)

        return lax.map(at, jnp.arange(steps))

    found = np.asarray(numbers(stream, keys))
    for step in np.flatnonzero(((found < 0) | (found >= tasks)).any(axis=1))[:1]:
        _refuse_outside(found[step], tasks, f"step {step:,} of the stream: ")


def _refuse_outside(numbers: np.ndarray, tasks: int, where: str) -> None:
    outside = numbers[(numbers < 0) | (numbers >= tasks)]
    if outside.size:
        raise InputError(
            f"{where}task {outside.flat[0]} is not one of {tasks} tasks. Count them from 0 to"
            f" {tasks - 1}"
        )


def gradient(model: Model, loss: LossFn) -> Callable[[Params, Batch], tuple[Grads, Metrics]]:
    """The gradient of the loss on a batch, and its metrics."""
    of_loss = jax.grad(objective(model, loss), has_aux=True)
    return lambda params, batch: of_loss(params, None, batch)


def alone(example: Example) -> Batch:
    """The batch of one example."""
    x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (example.x, example.y))
    return Batch(x, y)


def filled(count: Array | int, length: int) -> Array:
    """Weights `[length]`: 1 for the first `count` rows, 0 for the rows that are still empty."""
    return (jnp.arange(length) < count).astype(jnp.float32)


def recall(
    replay: Replay, key: Key, memory: PyTree, example: Example, count: int, batches: int = 1
) -> tuple[Batch, PyTree]:
    """Past examples `[batches * count, ...]`, and the memory with this example added.

    The draws are with replacement, and weighted. If the memory has only `size < count` examples,
    the first `size` draws of each batch have weight 1, the others 0. So a batch never counts more
    draws than there are examples.
    """
    sample_key, add_key = jax.random.split(key)
    size = replay.size(memory)
    weight = jnp.tile(filled(size, count), batches)
    # jit, because the memory is empty at the first example, and outside jit `sample` would refuse.
    sample = jax.jit(replay.sample, static_argnums=2)
    drawn = all_at_once(size, lambda: sample(sample_key, memory, batches * count).items)
    # The item depends on the draw, so XLA draws first, adds then, and copies no memory (`Replay`).
    item = jax.tree.map(lambda past, now: after(past, size, now), drawn, stored(example))
    return drawn._replace(weight=weight), replay.add(add_key, memory, item)


def stored(example: Example) -> Batch:
    """An example as memories hold it: x and y, because no method here reads its task again."""
    x, y = jax.tree.map(jnp.asarray, (example.x, example.y))
    return Batch(x, y)
