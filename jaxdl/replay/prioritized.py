"""Prioritized experience replay (Schaul et al. 2016, arXiv:1511.05952), the proportional variant.

replay = prioritized(capacity=100_000, alpha=0.6)
state = replay.add(key, state, transitions)
items, weights, indices = replay.sample(key, state, 32, is_exponent=0.4)
...  # a step on the mean of `weights * errors**2`
state = replay.update(state, indices, jnp.abs(errors) + 1e-6)
"""

import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from jaxdl.errors import InputError
from jaxdl.replay import rows, sumtree, uniform
from jaxdl.types import Array, Count, Key, PyTree, Replay, Sample, Scalar
from jaxdl.xla import after, all_at_once

Numbers = TypeVar("Numbers", jax.Array, np.ndarray)


class PrioritizedMemory(NamedTuple):
    """A ring of items, and a sum tree of `priority ** alpha` with one number per row of the ring.

    `largest` is the largest `priority ** alpha` so far.
    """

    memory: uniform.Memory
    tree: sumtree.SumTree
    largest: Scalar


def prioritized(*, capacity: int, alpha: float = 0.6) -> Replay:
    """The newest `capacity` items, drawn in proportion to `priority ** alpha`.

    A new item gets the largest priority so far, which is 1 at first. An item of priority 0 is not
    drawn again, unless `alpha` is 0. (The paper adds a small number to the error to avoid this.) If
    all priorities are 0, all items have the same probability. Inside jit, an empty memory returns
    its first row.

    Sampling is stratified. `weights` are `(size * probability) ** -is_exponent`, divided by the
    largest of the sample. The exponent is beta in the paper, and rises to 1 during training.

    `update` takes priorities that are not negative, and whose power is at most 1e30. If an index
    occurs more than once, its last priority counts. An index outside of the filled rows changes
    nothing.

    Outside of jit, an `is_exponent` or a priority out of range raises an error. Inside jit, their
    values are unknown. There a wrong exponent makes the weights NaN. So does a wrong priority, as
    long as it is in the memory.

    Raises:
        InputError: if `alpha` is negative or not finite, or `capacity` is below 1. `sample` and
            `update` raise it as said above.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> memory = jaxdl.prioritized(capacity=4, alpha=1.0)
    >>> state = memory.init(jnp.float32(0))
    >>> state = memory.add(None, state, jnp.array([10.0, 20.0]))
    >>> state = memory.update(state, jnp.array([0, 1]), jnp.array([0.0, 5.0]))
    >>> items, weights, indices = memory.sample(jax.random.key(0), state, 8)
    >>> set(items.tolist()), set(indices.tolist())  # what has no priority is not drawn
    ({20.0}, {1})
    """
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha={alpha}: choose 0 (equal probabilities) or above")

    def init(item: PyTree) -> PrioritizedMemory:
        memory = uniform.ring(capacity=capacity).init(item)
        return PrioritizedMemory(memory, sumtree.zeros(capacity), jnp.float32(1))

    def add(key: Key | None, state: PrioritizedMemory, items: PyTree) -> PrioritizedMemory:
        del key  # a ring draws no random numbers
        memory, indices = uniform.push(state.memory, items)
        largest = jnp.broadcast_to(state.largest, indices.shape)
        return state._replace(memory=memory, tree=sumtree.put(state.tree, indices, largest))

    def sample(
        key: Key, state: PrioritizedMemory, count: int, *, is_exponent: ArrayLike = 1.0
    ) -> Sample:
        rows.refuse_empty(state.memory.size)
        if (here := rows.known(is_exponent)) is not None and not valid_exponent(here):
            raise InputError(f"is_exponent={is_exponent}: choose a number from 0 to 1")
        valid = valid_exponent(jnp.asarray(is_exponent))

        def drawn() -> Sample:
            # The reads: of the sum tree `[groups, FAN]` per level, and of the items
            # `[capacity, ...]`. The results are `[count]` and `[count, ...]`.
            total = state.tree[-1].sum()
            indices = lax.cond(
                total > 0,
                lambda: sumtree.draw(key, state.tree, count),
                lambda: uniform.uniform_indices(key, state.memory.size, count),
            )
            values = sumtree.get(state.tree, indices)
            # size and total cancel: the rarest item has weight 1, the others their ratio to it.
            ratios = values.min(initial=jnp.inf) / values
            weights = jnp.where(total == 0, 1, ratios**is_exponent)
            weights = jnp.where(jnp.isfinite(total) & valid, weights, jnp.nan)
            items = rows.read(state.memory.items, indices)
            # `update` writes the tree at these indices. `after` makes them depend on the values
            # that were read from the tree, so the read comes before that write.
            return Sample(items, weights, after(values.sum(), state.memory.size, indices))

        # XLA updates an array in place only if all its reads come before the write. It may also
        # repeat a read at each use of the result. As the branch of a conditional, all reads happen
        # once, before every operation that uses the sample.
        return all_at_once(state.memory.size, drawn)

    def update(
        state: PrioritizedMemory, indices: Int[Array, " n"], priorities: Float[Array, " n"]
    ) -> PrioritizedMemory:
        here = rows.known(priorities)
        if here is not None and not valid_priority(here, alpha).all():
            raise InputError(
                f"priority {here[~valid_priority(here, alpha)][0]}: give finite ones, 0 or above,"
                f" whose power `alpha={alpha}` is at most {MOST:.0e}"
            )
        priorities = jnp.asarray(priorities)
        values = jnp.where(valid_priority(priorities, alpha), priorities**alpha, jnp.nan)
        filled = (indices >= 0) & (indices < state.memory.size)
        nowhere = state.tree[0].size
        indices = rows.last_of_each(jnp.where(filled, indices, nowhere), nowhere)
        good = filled & jnp.isfinite(values)
        largest = jnp.maximum(state.largest, jnp.where(good, values, 0).max(initial=0))
        # The next `add` writes items at `turn`. `after` makes `turn` depend on the indices of the
        # sample, so XLA puts this write after the sample's reads and needs no copy of the items.
        memory = state.memory._replace(turn=after(indices, state.memory.size, state.memory.turn))
        return PrioritizedMemory(memory, sumtree.put(state.tree, indices, values), largest)

    def size(state: PrioritizedMemory) -> Count:
        return state.memory.size

    return Replay(init, add, sample, update, size)


MOST = 1e30
"""The largest `priority ** alpha`: the sum of a hundred million of them is a float32."""


def valid_priority(priorities: Numbers, alpha: float) -> Numbers:
    """Whether each priority is not negative, and its power at most `MOST`."""
    longest = math.log(np.finfo(np.float32).max)
    most = math.exp(min(math.log(MOST) / alpha, longest)) if alpha else math.inf
    return (priorities >= 0) & (priorities <= most) & (priorities < math.inf)


def valid_exponent(exponent: Numbers) -> Numbers:
    """Whether the exponent is in [0, 1]. A schedule that ends at 1 may exceed it by rounding."""
    return (exponent >= 0) & (exponent <= 1 + 1e-6)
