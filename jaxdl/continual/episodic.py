"""The episodic memory of GEM and A-GEM: the newest examples of every task, each in a ring."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.continual.base import stored
from jaxdl.errors import InputError
from jaxdl.replay import rows
from jaxdl.types import Array, Batch, Example, Key


class Episodic(NamedTuple):
    """Examples `[tasks * room, ...]`, task t in rows `t * room` to `(t + 1) * room`.

    `counts` int32 `[tasks]`: how many ever came, of which the newest `room` are there.
    """

    items: Batch
    counts: Array


def empty(example: Example, tasks: int, room: int) -> Episodic:
    """A memory of `room` examples of each of so many tasks.

    Raises:
        InputError: if there is no task, or no room.
    """
    if tasks < 1 or room < 1:
        raise InputError(f"tasks={tasks}, room={room}: choose at least 1 of each")
    return Episodic(rows.empty(stored(example), tasks * room), jnp.zeros(tasks, jnp.int32))


def remember(memory: Episodic, example: Example) -> Episodic:
    """The memory with one more example of its task, whose number is in `[0, tasks)`."""
    task, room = example.task, room_of(memory)
    place = task * room + memory.counts[task] % room
    item = jax.tree.map(lambda leaf: leaf[None], stored(example))
    return Episodic(rows.write(memory.items, place[None], item), memory.counts.at[task].add(1))


def draw_others(key: Key, memory: Episodic, task: Array, count: int) -> Batch:
    """`count` examples of all tasks but this one, each alike; of weight 0 where there are none."""
    room = room_of(memory)
    sizes = sizes_of(memory).at[task].set(0)
    ends = jnp.cumsum(sizes)
    turns = jax.random.randint(key, (count,), 0, jnp.maximum(ends[-1], 1))
    tasks = jnp.searchsorted(ends, turns, side="right")
    places = tasks * room + turns - (ends - sizes)[tasks]
    weight = jnp.full(count, ends[-1] > 0, jnp.float32)
    return rows.read(memory.items, places)._replace(weight=weight)


def sizes_of(memory: Episodic) -> Array:
    """How many examples of each task are there, `[tasks]`."""
    return jnp.minimum(memory.counts, room_of(memory))


def room_of(memory: Episodic) -> int:
    """How many examples of each task there is room for."""
    return rows.length(memory.items) // memory.counts.shape[0]
