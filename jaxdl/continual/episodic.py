"""The episodic memory of GEM and A-GEM: one ring per task with its newest examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.continual.base import stored
from jaxdl.errors import InputError
from jaxdl.replay import rows
from jaxdl.types import Array, Batch, Example, Key


class Episodic(NamedTuple):
    """Examples `[tasks * n, ...]`: rows `t * n` to `(t + 1) * n` have the newest n of task t.

    `counts` is int32 `[tasks]`: how many examples of each task ever came.
    """

    items: Batch
    counts: Array


def empty(example: Example, tasks: int, memory_per_task: int) -> Episodic:
    """An empty memory of `memory_per_task` examples for each of `tasks` tasks.

    Raises:
        InputError: if one of these numbers is below 1.
    """
    if tasks < 1 or memory_per_task < 1:
        raise InputError(f"{tasks=}, {memory_per_task=} is too small. Choose at least 1 of each")
    items = rows.empty(stored(example), tasks * memory_per_task)
    return Episodic(items, jnp.zeros(tasks, jnp.int32))


def remember(memory: Episodic, example: Example) -> Episodic:
    """The memory with one more example; the number of its task must be in `[0, tasks)`."""
    task, n = example.task, per_task(memory)
    index = task * n + memory.counts[task] % n
    item = jax.tree.map(lambda leaf: leaf[None], stored(example))
    return Episodic(rows.write(memory.items, index[None], item), memory.counts.at[task].add(1))


def draw_others(key: Key, memory: Episodic, task: Array, count: int) -> Batch:
    """`count` uniform draws from all other tasks; their weight is 0 if those have no example."""
    sizes = sizes_of(memory).at[task].set(0)
    ends = jnp.cumsum(sizes)
    turns = jax.random.randint(key, (count,), 0, jnp.maximum(ends[-1], 1))
    tasks = jnp.searchsorted(ends, turns, side="right")
    indices = tasks * per_task(memory) + turns - (ends - sizes)[tasks]
    weight = jnp.full(count, ends[-1] > 0, jnp.float32)
    return rows.read(memory.items, indices)._replace(weight=weight)


def sizes_of(memory: Episodic) -> Array:
    """How many examples of each task the memory holds, `[tasks]`."""
    return jnp.minimum(memory.counts, per_task(memory))


def per_task(memory: Episodic) -> int:
    """How many examples per task the memory can hold."""
    return rows.length(memory.items) // memory.counts.shape[0]
