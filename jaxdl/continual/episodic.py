"""The episodic memory of GEM and A-GEM: the newest examples of every task, each in a ring."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.continual.base import stored
from jaxdl.errors import InputError
from jaxdl.replay import rows
from jaxdl.types import Array, Batch, Example, Key


class Episodic(NamedTuple):
    """Examples `[tasks * n, ...]`: the newest n of task t in rows `t * n` to `(t + 1) * n`.

    `counts` int32 `[tasks]`: how many ever came of each task.
    """

    items: Batch
    counts: Array


def empty(example: Example, tasks: int, memory_per_task: int) -> Episodic:
    """A memory of so many examples of each of so many tasks.

    Raises:
        InputError: if there is no task, or no memory for one.
    """
    if tasks < 1 or memory_per_task < 1:
        raise InputError(f"{tasks=}, {memory_per_task=}: choose at least 1 of each")
    items = rows.empty(stored(example), tasks * memory_per_task)
    return Episodic(items, jnp.zeros(tasks, jnp.int32))


def remember(memory: Episodic, example: Example) -> Episodic:
    """The memory with one more example of its task, whose number is in `[0, tasks)`."""
    task, n = example.task, per_task(memory)
    index = task * n + memory.counts[task] % n
    item = jax.tree.map(lambda leaf: leaf[None], stored(example))
    return Episodic(rows.write(memory.items, index[None], item), memory.counts.at[task].add(1))


def draw_others(key: Key, memory: Episodic, task: Array, count: int) -> Batch:
    """`count` examples of all tasks but this one, each alike; of weight 0 where there are none."""
    sizes = sizes_of(memory).at[task].set(0)
    ends = jnp.cumsum(sizes)
    turns = jax.random.randint(key, (count,), 0, jnp.maximum(ends[-1], 1))
    tasks = jnp.searchsorted(ends, turns, side="right")
    indices = tasks * per_task(memory) + turns - (ends - sizes)[tasks]
    weight = jnp.full(count, ends[-1] > 0, jnp.float32)
    return rows.read(memory.items, indices)._replace(weight=weight)


def sizes_of(memory: Episodic) -> Array:
    """How many examples of each task are there, `[tasks]`."""
    return jnp.minimum(memory.counts, per_task(memory))


def per_task(memory: Episodic) -> int:
    """How many examples of each task the memory can hold."""
    return rows.length(memory.items) // memory.counts.shape[0]
