"""Numbers by index, with their sums, from which indices are drawn in proportion to the numbers.

A tree as in prioritized experience replay (Schaul et al. 2016, appendix B.2.1), but with `FAN`
children a node instead of two: five levels hold a million numbers, and each level is one gather
and one reduction over all indices at once.

A sum is always added up anew from the children and never corrected by a difference, so that
rounding does not gather however many updates there are.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxdl.types import Array, Key

FAN = 16
"""Children of a node."""

SumTree = tuple[Float[Array, "_ 16"], ...]
"""Levels `[groups, FAN]` from the numbers up to the root's children: each group of a level has its
sum in the level above, at the same place in the order. What lies past the last number is 0."""


def zeros(capacity: int) -> SumTree:
    """A tree of `capacity` numbers that are 0."""
    levels: list[Array] = []
    entries = capacity
    while not levels or entries > 1:
        entries = -(-entries // FAN)
        levels.append(jnp.zeros((entries, FAN)))
    return tuple(levels)


def put(tree: SumTree, indices: Int[Array, " count"], values: Float[Array, " count"]) -> SumTree:
    """The tree with values `[count]`, not negative, at indices `[count]` that differ.

    An index past the end of the tree takes nothing. A number below the least normal one, some
    1e-38, is 0: a CPU would keep it, and leave it out of the sums.
    """
    values = jnp.where(values < float(np.finfo(np.float32).tiny), 0, values)
    # No sum is below 0, but XLA does not know, and so puts this write after all reads of the last
    # one: see `xla.after`. It would copy the numbers otherwise, between two puts in one program.
    indices = jnp.where(tree[-1][0, 0] < 0, tree[0].size, indices)
    levels = [
        tree[0].at[indices // FAN, indices % FAN].set(values, mode="drop", unique_indices=True)
    ]
    for level in tree[1:]:
        # An index past the end has its group's sum taken anew, too: of what it was, to what it was.
        indices = jnp.minimum(indices // FAN, len(levels[-1]) - 1)
        sums = levels[-1].at[indices].get(mode="clip").sum(-1)
        levels.append(level.at[indices // FAN, indices % FAN].set(sums, mode="drop"))
    return tuple(levels)


def get(tree: SumTree, indices: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """The numbers at these indices."""
    return tree[0].at[indices // FAN, indices % FAN].get(mode="clip")


def draw(key: Key, tree: SumTree, count: int) -> Int[Array, " {count}"]:
    """`count` int32 indices, each with a probability in proportion to its number; never one of 0.

    The range of the sum is cut into `count` equal parts, each of which gives one index, as in the
    paper; but parts tell only the groups of the top level apart, and below every level has a random
    number of its own. One number for all levels would leave an index among a million 8 or 9 of the
    2**23 values that a float32 takes, which is 12 % of error. The tree must hold a number above 0;
    if not, the indices are 0.
    """
    # In (0, 1], so that the sum that is asked for is above 0, and is reached by a number above 0.
    turns = 1 - jax.random.uniform(key, (len(tree), count))
    turns = turns.at[0].set((jnp.arange(count) + turns[0]) / count)
    indices = jnp.zeros(count, jnp.int32)
    for level, turn in zip(reversed(tree), turns, strict=True):
        values = level.at[indices].get(mode="clip")
        # XLA's own cumulative sum takes FAN**2 additions on a CPU.
        sums = lax.associative_scan(jnp.add, values, axis=-1)
        reached = jnp.where(values > 0, sums, -1)
        target = turn * reached.max(-1)
        indices = indices * FAN + jnp.argmax(reached >= target[:, None], axis=-1).astype(jnp.int32)
    return indices
