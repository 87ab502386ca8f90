"""What continual learners have in common: one example after another, and never the same one again.

A method is three pure functions, `Continual`. Most are a gradient that also looks into a memory
(`RecallFn`), followed by an Optax update: `descending` makes these. What a method remembers is part
of its state, so that a stopped run goes on with the memory that it had. Nets are applied without a
key, so none has dropout.

A learner that is made for so many `tasks` counts them from 0. A number outside `[0, tasks)` raises
InputError where its value is known. Inside jit nobody can raise, and an array takes any index:
there the metrics and the gradient of the step, or the predictions, are NaN, which ends a run.
`check_stream` looks at all numbers of a stream before anything is learnt from it.
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

    init: Callable[[Key, Example], PyTree]
    step: StepFn
    predict: Callable[[PyTree, Array, PyTree], PyTree]


class RecallFn(Protocol):
    """`(key, params, memory, example) -> (grads, metrics, memory)`: a gradient that remembers."""

    def __call__(
        self, key: Key, params: Params, memory: PyTree, example: Example
    ) -> tuple[Grads, Metrics, PyTree]: ...


def nothing(params: Params, example: Example) -> tuple[()]:
    """No memory at all."""
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
    """The learner that goes down a gradient.

    `remember(params, example) -> memory` is what it remembers before the first example. `tasks` is
    the number of tasks, for a memory that has a place for each: see the module docstring. None
    takes any number.
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
    """A task's number and whether it is in `[0, tasks)`; 0 stands for one that is not.

    What is computed from that 0 must be spoilt: see `spoilt_unless`.

    Raises:
        InputError: if the number is known and not in range.
    """
    if (here := rows.known(task)) is not None:
        _refuse_outside(here, tasks, "")
    good = (task >= 0) & (task < tasks)
    return jnp.where(good, task, 0), jnp.asarray(good)


def spoilt_unless(good: Array | bool, tree: Tree) -> Tree:
    """The tree, whose numbers are NaN where `good` is False."""

    def of_leaf(leaf: Array) -> Array:
        inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jnp.where(good, leaf, jnp.nan) if inexact else leaf

    return tree if good is True else jax.tree.map(of_leaf, tree)


def check_stream(stream: Callable[..., Example], keys: Key, steps: int, tasks: int) -> None:
    """Refuses a stream for `loop` that leaves `[0, tasks)` in one of its first `steps`.

    It computes the numbers of all steps for all run keys `[seeds]`, and nothing else of the stream.

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
            f"{where}task {outside.flat[0]} is not one of {tasks}: count the tasks from 0 to"
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
    """Weights `[length]`: 1 for the first `count` rows, 0 for those that hold nothing yet."""
    return (jnp.arange(length) < count).astype(jnp.float32)


def recall(
    replay: Replay, key: Key, memory: PyTree, example: Example, count: int, batches: int = 1
) -> tuple[Batch, PyTree]:
    """Examples from before this one `[batches * count, ...]`, and the memory with this one in it.

    They are drawn with replacement, and weighted: of a memory of `size < count` examples the first
    `size` of each batch count, so that there are never more draws than there are examples.
    """
    sample_key, add_key = jax.random.split(key)
    size = replay.size(memory)
    weight = jnp.tile(filled(size, count), batches)
    # Inside jit, for the first example comes to an empty memory, and that is no mistake.
    sample = jax.jit(replay.sample, static_argnums=2)
    drawn = all_at_once(size, lambda: sample(sample_key, memory, batches * count).items)
    # To draw first and add then, without a copy of the memory: see `Replay`.
    item = jax.tree.map(lambda past, now: after(past, size, now), drawn, stored(example))
    return drawn._replace(weight=weight), replay.add(add_key, memory, item)


def stored(example: Example) -> Batch:
    """An example as memories hold it: x and y, for no method here looks at the task again."""
    x, y = jax.tree.map(jnp.asarray, (example.x, example.y))
    return Batch(x, y)
