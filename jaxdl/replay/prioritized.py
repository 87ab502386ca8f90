"""Prioritized experience replay (Schaul et al. 2016, arXiv:1511.05952), the proportional variant.

replay = prioritized(capacity=100_000, alpha=0.6)
state = replay.add(key, state, transitions)
items, places, weights = replay.sample(key, state, 32, beta)
... a step on `weights * errors**2` ...
state = replay.update(state, places, jnp.abs(errors) + 1e-6)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.replay import rows, sumtree, uniform
from jaxdl.types import Array, Key, PyTree


class Sample(NamedTuple):
    """`items` `[count, ...]`, their int32 `places` and importance `weights`, both `[count]`."""

    items: PyTree
    places: Array
    weights: Array


class PrioritizedMemory(NamedTuple):
    """A ring, the priorities to the power alpha in a sum tree, and the largest there ever was."""

    memory: uniform.Memory
    tree: sumtree.SumTree
    largest: Array


class PrioritizedReplay(NamedTuple):
    """`jaxdl.types.Replay` with priorities.

    `init(item) -> state`, `add(key, state, items) -> state`: as there; the key is not looked at.
    `sample(key, state, count, beta) -> Sample`.
    `update(state, places, priorities) -> state`: new priorities `[count]`, finite and not negative,
    of the items at these places; of equal places the last counts, and empty ones take nothing.
    """

    init: Callable[[PyTree], PrioritizedMemory]
    add: Callable[[Any, PrioritizedMemory, PyTree], PrioritizedMemory]
    sample: Callable[[Key, PrioritizedMemory, int, Any], Sample]
    update: Callable[[PrioritizedMemory, Array, Array], PrioritizedMemory]


def prioritized(*, capacity: int, alpha: float = 0.6) -> PrioritizedReplay:
    """The newest `capacity` items, drawn in proportion to `priority ** alpha`.

    A new item has the largest priority that was ever given, 1 at first. An item whose priority is
    0 is not drawn again (the paper adds a small number to the error); inside jit, a memory that is
    empty or without priorities gives its first row.

    Sampling is stratified. `weights` are `(size * probability) ** -beta`, divided by the largest
    of the sample; `beta` in [0, 1] goes to 1 as training goes on and may be traced.

    Raises:
        InputError: if `alpha` is negative, and as a ring does.
    """
    if not alpha >= 0:
        raise InputError(f"alpha={alpha}: choose 0, which draws all items alike, or above")

    def init(item: PyTree) -> PrioritizedMemory:
        memory = uniform.ring(capacity=capacity).init(item)
        return PrioritizedMemory(memory, sumtree.zeros(capacity), jnp.float32(1))

    def add(key: Key | None, state: PrioritizedMemory, items: PyTree) -> PrioritizedMemory:
        del key  # where an item goes is no matter of chance
        memory, places = uniform.push(state.memory, items)
        largest = jnp.broadcast_to(state.largest, places.shape)
        return state._replace(memory=memory, tree=sumtree.put(state.tree, places, largest))

    def sample(key: Key, state: PrioritizedMemory, count: int, beta: Any) -> Sample:
        rows.refuse_empty(state.memory.size)

        def drawn() -> Sample:
            places = sumtree.draw(key, state.tree, count)
            values = sumtree.get(state.tree, places)
            # size and total cancel: the rarest has weight 1, the others by their ratio to it.
            rarest = values.min()
            weights = jnp.where(rarest > 0, (rarest / values) ** beta, 1)
            items = rows.read(state.memory.items, places)
            return Sample(items, rows.after(values.sum(), state.memory.size, places), weights)

        return rows.all_at_once(state.memory.size, drawn)

    def update(state: PrioritizedMemory, places: Array, priorities: Array) -> PrioritizedMemory:
        values = priorities**alpha
        filled = (places >= 0) & (places < state.memory.size)
        nowhere = state.tree[0].size
        places = rows.last_of_each(jnp.where(filled, places, nowhere), nowhere)
        largest = jnp.maximum(state.largest, jnp.where(filled, values, 0).max(initial=0))
        # `add` must not overwrite what the sample still reads: tell XLA that it comes later.
        memory = state.memory._replace(
            turn=rows.after(places, state.memory.size, state.memory.turn)
        )
        return PrioritizedMemory(memory, sumtree.put(state.tree, places, values), largest)

    return PrioritizedReplay(init, add, sample, update)
