"""Memories with uniform sampling: of the newest items, or of all items that were ever added.

Sampling is with replacement. To sample from an empty memory is an error if its size has a value:
outside of jit, and inside for a memory that the function closes over. If the memory is an argument
of a compiled program, its size has no value, and an empty memory returns zeros. So add first, or
learn in `lax.cond(size(state) >= enough, ...)`.

The arrays have the axes `[capacity, ...]`, and an `add` overwrites rows in place: see `rows`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, UInt

from jaxdl.replay import rows
from jaxdl.types import Array, Count, Key, PyTree, Replay, Sample


class Memory(NamedTuple):
    """Items `[capacity, ...]`, of which the first `size` rows are filled.

    In a ring, `turn` is the row of the next item, int32. In a reservoir, `turn` is the number of
    items added so far, uint32. Checkpoints store each field under its name, so do not rename it.
    """

    items: PyTree
    size: Count
    turn: Integer[Array, ""]


def ring(*, capacity: int) -> Replay:
    """The newest `capacity` items (Lin, "Self-improving reactive agents", 1992).

    `add` ignores its key. A batch counts as its items one after another.

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
        del key  # a ring draws no random numbers
        return push(state, items)[0]

    return Replay(init, add, draw, update, size)


def reservoir(*, capacity: int) -> Replay:
    """A uniform sample of all items that were ever added (Vitter, "Random sampling with a
    reservoir", 1985, algorithm R).

    After n items, each is in the memory with probability `capacity / n`, the first as well as the
    last. A batch counts as its items one after another. The count stops at 2**32 - 1 items.

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
    """The ring with new items, and the rows `[count]` that they went to.

    Of a batch longer than the ring, only the last `capacity` items go in.
    """
    batch, count = rows.as_batch(state.items, items)
    capacity = rows.length(state.items)
    kept = min(count, capacity)  # one scatter must not write a row twice: see `rows.write`
    indices = (state.turn + (count - kept) + jnp.arange(kept, dtype=jnp.int32)) % capacity
    newest = jax.tree.map(lambda leaf: leaf[count - kept :], batch)
    after = Memory(
        rows.write(state.items, indices, newest),
        jnp.minimum(state.size + count, capacity),
        (state.turn + count) % capacity,
    )
    return after, indices


def draw(key: Key, state: Memory, count: int, *, is_exponent: ArrayLike = 1.0) -> Sample:
    """`count` items `[count, ...]`, drawn from the filled rows with equal probability.

    Raises:
        InputError: if the size has a value and it is zero.
    """
    del is_exponent  # with equal probabilities, every exponent gives weights of 1
    rows.refuse_empty(state.size)
    indices = uniform_indices(key, state.size, count)
    return Sample(rows.read(state.items, indices), jnp.ones(count), indices)


def update(state: Memory, indices: Int[Array, " n"], priorities: Float[Array, " n"]) -> Memory:
    """The state unchanged, because these memories have no priorities."""
    del indices, priorities
    return state


def size(state: Memory) -> Count:
    """The number of items in the memory, int32."""
    return state.size


def uniform_indices(key: Key, size: Count, count: int) -> Int[Array, " {count}"]:
    """`count` int32 indices below `size`, with equal probability. All are 0 if `size` is 0."""
    return jax.random.randint(key, (count,), 0, jnp.maximum(size, 1), jnp.int32)


def reservoir_indices(
    key: Key, seen: UInt[Array, ""], count: int, capacity: int
) -> Int[Array, " {count}"]:
    """The rows that `count` items go to after `seen` earlier items, int32 `[count]`.

    The row `capacity` means that the item is not stored.
    """
    before = _counted(seen, jnp.arange(count, dtype=jnp.uint32))
    chosen = jax.random.randint(key, (count,), 0, _counted(before, 1), jnp.uint32)
    indices = jnp.where(before < capacity, before, jnp.minimum(chosen, capacity))
    return indices.astype(jnp.int32)


def _counted(seen: UInt[Array, "..."], more: UInt[Array, "..."] | int) -> UInt[Array, "..."]:
    """`seen + more` in uint32, at most 2**32 - 1. It does not wrap around to 0."""
    total = seen + jnp.uint32(more)
    return jnp.where(total < seen, jnp.uint32(2**32 - 1), total)
