"""Memories from which every item is drawn alike: of the newest items, or of all that ever came.

Sampling is with replacement. An empty memory is refused where its size is known: outside of jit,
and inside for a memory that the function closes over. Nobody can see it of a memory that is an
argument of a compiled program: a draw then gives the zeros that it was made of. Where learning
starts before the memory has filled, add first, or learn in `lax.cond(size(state) >= enough, ...)`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, UInt

from jaxdl.replay import rows
from jaxdl.types import Array, Count, Key, PyTree, Replay, Sample


class Memory(NamedTuple):
    """The first `size` rows of `items` are filled.

    `turn` is what the rule of the memory needs: the index of the next item in a ring, int32; how
    many items came so far for a reservoir, uint32. Checkpoints store a field under its name, so it
    stays.
    """

    items: PyTree
    size: Count
    turn: Integer[Array, ""]


def ring(*, capacity: int) -> Replay:
    """The newest `capacity` items (Lin, "Self-improving reactive agents", 1992).

    `add` needs no key and looks at none; a batch counts as its items one after another.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> memory = jaxdl.ring(capacity=3)
    >>> state = memory.init(jnp.float32(0))
    >>> state = memory.add(None, state, jnp.array([1.0, 2.0, 3.0, 4.0]))  # the first is gone
    >>> int(memory.size(state))
    3
    >>> items, weights, indices = memory.sample(jax.random.key(0), state, 50)
    >>> sorted(set(items.tolist()))
    [2.0, 3.0, 4.0]
    """

    def init(item: PyTree) -> Memory:
        return Memory(rows.empty(item, capacity), jnp.int32(0), jnp.int32(0))

    def add(key: Key | None, state: Memory, items: PyTree) -> Memory:
        del key  # where an item goes is no matter of chance
        return push(state, items)[0]

    return Replay(init, add, draw, update, size)


def reservoir(*, capacity: int) -> Replay:
    """A uniform sample of all items that ever came (Vitter, "Random sampling with a reservoir",
    1985, algorithm R).

    After n items each is kept with probability `capacity / n`, the first as well as the last. A
    batch counts as its items one after another. Past 2**32 - 1 items the count stands still.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> memory = jaxdl.reservoir(capacity=100)
    >>> state = memory.init(jnp.float32(0))
    >>> state = jax.jit(memory.add)(jax.random.key(0), state, jnp.arange(10_000.0))
    >>> int(memory.size(state)), 4000 < float(state.items.mean()) < 6000
    (100, True)
    """

    def init(item: PyTree) -> Memory:
        return Memory(rows.empty(item, capacity), jnp.int32(0), jnp.uint32(0))

    def add(key: Key, state: Memory, items: PyTree) -> Memory:
        batch, count = rows.as_batch(state.items, items)
        indices = reservoir_indices(key, state.turn, count, capacity)
        return Memory(
            rows.write(state.items, rows.last_of_each(indices, capacity), batch),
            jnp.minimum(state.size + count, capacity),
            _counted(state.turn, count),
        )

    return Replay(init, add, draw, update, size)


def push(state: Memory, items: PyTree) -> tuple[Memory, Int[Array, " count"]]:
    """Items added to a ring, and the indices `[count]` where they went."""
    batch, count = rows.as_batch(state.items, items)
    capacity = rows.length(state.items)
    kept = min(count, capacity)  # the first of a long batch would be overwritten by its last
    indices = (state.turn + (count - kept) + jnp.arange(kept, dtype=jnp.int32)) % capacity
    newest = jax.tree.map(lambda leaf: leaf[count - kept :], batch)
    after = Memory(
        rows.write(state.items, indices, newest),
        jnp.minimum(state.size + count, capacity),
        (state.turn + count) % capacity,
    )
    return after, indices


def draw(key: Key, state: Memory, count: int, *, is_exponent: ArrayLike = 1.0) -> Sample:
    """`count` items `[count, ...]`, each of the filled rows with the same probability.

    Raises:
        InputError: if the memory is known to be empty.
    """
    del is_exponent  # of equal probabilities every power gives weights of 1
    rows.refuse_empty(state.size)
    indices = uniform_indices(key, state.size, count)
    return Sample(rows.read(state.items, indices), jnp.ones(count), indices)


def update(state: Memory, indices: Int[Array, " n"], priorities: Float[Array, " n"]) -> Memory:
    """The state as it is: these memories have no priorities."""
    del indices, priorities
    return state


def size(state: Memory) -> Count:
    """How many items there are, int32."""
    return state.size


def uniform_indices(key: Key, size: Count, count: int) -> Int[Array, " {count}"]:
    """`count` int32 indices below `size`, all with the same probability; 0 where `size` is 0."""
    return jax.random.randint(key, (count,), 0, jnp.maximum(size, 1))


def reservoir_indices(
    key: Key, seen: UInt[Array, ""], count: int, capacity: int
) -> Int[Array, " {count}"]:
    """Where `count` items go after `seen` others: int32 `[count]`, `capacity` for not at all."""
    before = _counted(seen, jnp.arange(count, dtype=jnp.uint32))
    chosen = jax.random.randint(key, (count,), 0, _counted(before, 1), jnp.uint32)
    indices = jnp.where(before < capacity, before, jnp.minimum(chosen, capacity))
    return indices.astype(jnp.int32)


def _counted(seen: UInt[Array, "..."], more: UInt[Array, "..."] | int) -> UInt[Array, "..."]:
    """`seen + more` in uint32, which stands still at the end instead of starting again at 0."""
    total = seen + jnp.uint32(more)
    return jnp.where(total < seen, jnp.uint32(2**32 - 1), total)
