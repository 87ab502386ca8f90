"""Prioritized experience replay (Schaul et al. 2016, arXiv:1511.05952), the proportional variant.

replay = prioritized(capacity=100_000, alpha=0.6)
state = replay.add(key, state, transitions)
items, places, weights = replay.sample(key, state, 32, beta)
... a step on `weights * errors**2` ...
state = replay.update(state, places, jnp.abs(errors) + 1e-6)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError
from jaxdl.replay import rows, sumtree, uniform
from jaxdl.types import Array, Key, PyTree
from jaxdl.xla import after, all_at_once


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
    0 is not drawn again (the paper adds a small number to the error). If all priorities are 0, all
    items are drawn alike. Inside jit an empty memory gives its first row.

    Sampling is stratified. `weights` are `(size * probability) ** -beta`, divided by the largest
    of the sample; `beta` in [0, 1] goes to 1 as training goes on.

    A `beta` or a priority that is out of range is refused where its value is known. Inside jit it
    is not, and there it makes the weights NaN, as long as such a priority is in the memory.

    Raises:
        InputError: if `alpha` is negative or not finite, and as a ring does; from `sample` and
            `update`, as said above.
    """
    if not 0 <= alpha < math.inf:
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
        if (here := rows.known(beta)) is not None and not valid_beta(here):
            raise InputError(f"beta={beta}: choose a number from 0 to 1")

        def drawn() -> Sample:
            total = state.tree[-1].sum()
            places = lax.cond(
                total > 0,
                lambda: sumtree.draw(key, state.tree, count),
                lambda: uniform.places(key, state.memory.size, count),
            )
            values = sumtree.get(state.tree, places)
            # size and total cancel: the rarest has weight 1, the others by their ratio to it.
            ratios = values.min(initial=jnp.inf) / values
            weights = jnp.where(total == 0, 1, ratios**beta)
            weights = jnp.where(jnp.isfinite(total) & valid_beta(beta), weights, jnp.nan)
            items = rows.read(state.memory.items, places)
            return Sample(items, after(values.sum(), state.memory.size, places), weights)

        return all_at_once(state.memory.size, drawn)

    def update(state: PrioritizedMemory, places: Array, priorities: Array) -> PrioritizedMemory:
        here = rows.known(priorities)
        if here is not None and not valid_priority(here).all():
            raise InputError(
                f"priority {here[~valid_priority(here)][0]}: give finite ones, 0 or above"
            )
        values = jnp.where(valid_priority(priorities), priorities**alpha, jnp.nan)
        filled = (places >= 0) & (places < state.memory.size)
        nowhere = state.tree[0].size
        places = rows.last_of_each(jnp.where(filled, places, nowhere), nowhere)
        largest = jnp.maximum(state.largest, jnp.where(filled, values, 0).max(initial=0))
        # `add` must not overwrite what the sample still reads: tell XLA that it comes later.
        memory = state.memory._replace(turn=after(places, state.memory.size, state.memory.turn))
        return PrioritizedMemory(memory, sumtree.put(state.tree, places, values), largest)

    return PrioritizedReplay(init, add, sample, update)


def valid_priority(priorities: Any) -> Any:
    """Whether each is finite and not negative."""
    return (priorities >= 0) & (priorities < math.inf)


def valid_beta(beta: Any) -> Any:
    """Whether it is in [0, 1], but for the rounding of a schedule that ends at 1."""
    return (beta >= 0) & (beta <= 1 + 1e-6)
