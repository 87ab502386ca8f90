"""A sum tree: numbers by index, and draws of an index in proportion to its number.

The tree is that of prioritized experience replay (Schaul et al. 2016, appendix B.2.1), but with
`FAN` children per node instead of two. Five levels hold a million numbers. Each level costs one
gather and one reduction over all indices at once.

An update adds up each sum anew from its children. It never adds a difference to the old sum. So
rounding errors do not accumulate, however many updates there are.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxdl.types import Array, Key

FAN = 16
"""Children per node."""

SumTree = tuple[Float[Array, "_ 16"], ...]
"""Levels `[groups, FAN]`, from the numbers up to the root's children. A row is a group of siblings.
The sum of group g of a level is entry g of the level above: row `g // FAN`, column `g % FAN`.
Entries past the last number are 0."""


def zeros(capacity: int) -> SumTree:
    """A tree of `capacity` zeros."""
    levels: list[Array] = []
    entries = capacity
    while not levels or entries > 1:
        entries = -(-entries // FAN)
        levels.append(jnp.zeros((entries, FAN)))
    return tuple(levels)


def put(tree: SumTree, indices: Int[Array, " count"], values: Float[Array, " count"]) -> SumTree:
    """The tree with values `[count]`, not negative, at indices `[count]` that differ.

    A value at an index past the end of the tree is dropped. A value below the least normal float32,
    about 1e-38, becomes 0, because a CPU would store it but leave it out of the sums.
    """
    values = jnp.where(values < float(np.finfo(np.float32).tiny), 0, values)
    # The indices depend on a sum that the last put wrote, so this write comes after all reads of
    # that put: see `xla.after`. Without it XLA copies the numbers between two puts in one program.
    # No sum is below 0, so no index changes, but XLA cannot know this.
    indices = jnp.where(tree[-1][0, 0] < 0, tree[0].size, indices)
    levels = [
        tree[0].at[indices // FAN, indices % FAN].set(values, mode="drop", unique_indices=True)
    ]
    for level in tree[1:]:
        # Here the indices are those of the groups below, one level up per pass of the loop. An
        # index past the end becomes the last group, whose sum is computed anew and does not change.
        indices = jnp.minimum(indices // FAN, len(levels[-1]) - 1)
        sums = levels[-1].at[indices].get(mode="clip").sum(-1)
        levels.append(level.at[indices // FAN, indices % FAN].set(sums, mode="drop"))
    return tuple(levels)


def get(tree: SumTree, indices: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """The numbers at these indices."""
    return tree[0].at[indices // FAN, indices % FAN].get(mode="clip")


def draw(key: Key, tree: SumTree, count: int) -> Int[Array, " {count}"]:
    """`count` int32 indices, drawn with probability in proportion to the numbers. None is of a 0.

    As in the paper, the range of the sum is cut into `count` equal parts, and each part gives one
    index. But the parts only choose the child at the top level. Every level below draws a random
    number of its own. With one number for all levels, each of a million indices would get 8 or 9 of
    the 2**23 values of a float32, an error of 12 %. The tree must hold a number above 0. If not,
    the indices are 0.
    """
    # `[levels, count]`, in (0, 1]. So the target is above 0, and an entry above 0 reaches it.
    turns = 1 - jax.random.uniform(key, (len(tree), count))
    turns = turns.at[0].set((jnp.arange(count) + turns[0]) / count)
    indices = jnp.zeros(count, jnp.int32)
    for level, turn in zip(reversed(tree), turns, strict=True):
        values = level.at[indices].get(mode="clip")  # [count, FAN]: the children of each node
        # XLA's own cumulative sum takes FAN**2 additions on a CPU.
        sums = lax.associative_scan(jnp.add, values, axis=-1)
        reached = jnp.where(values > 0, sums, -1)
        target = turn * reached.max(-1)
        indices = indices * FAN + jnp.argmax(reached >= target[:, None], axis=-1).astype(jnp.int32)
    return indices
