"""Training on a part of a data set: so many examples of each class, another part for each run.

How many, and which, are numbers that one compiled program reads, so that the runs of one
`train.loop` may learn from subsets of different sizes. For the same subset key smaller subsets lie
inside larger ones.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int, Shaped

from jaxdl.data.epochs import shuffled
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Batch, Count, Key, PyTree, Shard


class Table(NamedTuple):
    """Examples sorted by class: class c owns rows `starts[c]` to `starts[c] + sizes[c]` of x."""

    x: Shaped[Array, "examples ..."]
    starts: Int[Array, " classes"]
    sizes: Int[Array, " classes"]


ALL = 2**30
"""More examples than a class can have."""
SUBSETS = 1_000_001
"""Folded into a seed's key for which examples it gets; for all else a run's index, below it."""


class Subset(NamedTuple):
    """`shots` examples of each class, or all where a class has fewer; `key` says which.

    Both may be traced, or have a leading axis of runs.
    """

    key: Shaped[Key, "*runs"]
    shots: Int[Array, "*runs"]


class Cells(NamedTuple):
    """The runs of one program: keys, subsets, step sizes, and the index of each run's seed.

    Each has a leading axis of rates x counts x seeds, in this order, flattened.
    """

    keys: Shaped[Key, " runs"]
    subsets: Subset
    rates: Float[Array, " runs"]
    seeds: Int[np.ndarray, " runs"]


def cells(keys: Shaped[Key, " seeds"], counts: Sequence[int], rates: Sequence[float]) -> Cells:
    """Every step size with every count of examples a class (0: all) with every seed `[seeds]`.

    What a seed gets with a smaller count lies inside what it gets with a larger one.
    """
    rate, count, seed = np.indices((len(rates), len(counts), len(keys))).reshape(3, -1)
    folded = jax.vmap(jax.random.fold_in)
    shots = np.array([n or ALL for n in counts])[count]
    return Cells(
        folded(keys[seed], jnp.arange(len(seed))),
        Subset(folded(keys[seed], jnp.full(len(seed), SUBSETS)), jnp.asarray(shots, jnp.int32)),
        jnp.asarray(rates)[rate],
        seed,
    )


def by_class(x: PyTree, y: PyTree, *, classes: int | None = None) -> Table:
    """The table of examples `[n, ...]` whose labels `[n]` are 0 to classes - 1, each at least once.

    Raises:
        InputError: if they are not; `classes` None stands for one more than the largest label.
    """
    x = np.asarray(x)
    y = check_labels(y, len(x), classes=classes)
    names, sizes = np.unique(y, return_counts=True)
    count = int(names[-1]) + 1 if classes is None else classes
    if len(names) < count:
        lacking = np.append(names, -1) != np.arange(len(names) + 1)
        raise InputError(
            f"no example has the label {lacking.argmax()}, but each of 0 to {count - 1} must come"
            " once at least: np.unique(labels, return_inverse=True)[1] numbers them without gaps"
        )
    starts, order = np.cumsum(sizes) - sizes, np.argsort(y, kind="stable")
    as_ints = (jnp.asarray(each, jnp.int32) for each in (starts, sizes))
    return Table(jnp.asarray(x[order]), *as_ints)


def divided(labels: np.ndarray, first: int, second: int) -> tuple[np.ndarray, ...]:
    """Rows `[.]` of three parts of a data set: of each class the first, the next, and the rest.

    Args:
        labels: integers `[n]` from 0.
        first: examples a class of the first part; below 0: all but so many.
        second: examples a class of the second.

    Raises:
        InputError: if the labels are others.
    """
    _, labels = np.unique(check_labels(labels), return_inverse=True)
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    sizes = np.bincount(labels)
    ranks = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels]
    ends = first if first >= 0 else sizes[labels] + first
    parts = ranks < ends, (ranks >= ends) & (ranks < ends + second), ranks >= ends + second
    return tuple(order[part] for part in parts)


def size(table: Table, shots: Any) -> Count:
    """How many examples a subset of `shots` a class has: int32, `shots` may be traced."""
    return jnp.sum(jnp.minimum(table.sizes, shots))


def members(
    table: Table, subset: Subset, places: Int[Array, " n"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Rows of the table, and classes, of the examples at these places of a subset.

    Places `[n]` are below `size(table, subset.shots)`, and each is another example: those of class
    0 come first. All may be traced; nothing is stored or sorted.
    """
    ends = jnp.cumsum(jnp.minimum(table.sizes, subset.shots))
    labels = jnp.searchsorted(ends, places, side="right").astype(jnp.int32)
    ranks = places - jnp.where(labels > 0, ends[labels - 1], 0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(subset.key, labels)
    # The first `shots` of one fixed order of the whole class.
    found = jax.vmap(shuffled, (0, None, 0, 0))(keys, 0, ranks, table.sizes[labels])
    return table.starts[labels] + found, labels


def in_turn(
    table: Table, subset: Subset, key: Key, turns: Int[Array, " n"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Rows and classes at `turns` `[n]` of an endless sequence: each member once an epoch.

    The order of each epoch is another one; `key` says which.
    """
    total = size(table, subset.shots)
    places = jax.vmap(shuffled, (None, 0, 0, None))(key, turns // total, turns % total, total)
    return members(table, subset, places)


def subset_epochs(
    table: Table,
    *,
    batch: int,
    transform: Callable[[Key, Array], Any],
    runs: Key,
    subsets: Subset,
) -> Partial:
    """Stream of batches in which the run `runs[i]` goes through `subsets[i]` again and again.

    Each example comes exactly once an epoch; batches go across the ends of epochs, and hold an
    example more than once where the subset is smaller than a batch. As `data.epochs.epochs`, which
    see, with subsets in place of one whole set.

    Args:
        table: see `by_class`.
        batch: examples a step, over all devices.
        transform: makes one stored example `[...]` what the net sees.
        runs: the run keys `[runs]` that `train.loop` gets, all different: by its key a run finds
            its subset.
        subsets: key and shots, `[runs]` each.

    Returns:
        A `jaxdl.train.loop.Stream` of `Batch`es. Table and subsets are arguments of the compiled
        program: one serves subsets of any size.

    Raises:
        InputError: a batch below 1, run keys that are not different or not as many as subsets.
    """
    names = np.asarray(jax.random.key_data(runs))
    if batch < 1:
        raise InputError(f"batch={batch} must be at least 1")
    if len(np.unique(names, axis=0)) != len(names) or len(names) != len(subsets.shots):
        raise InputError(
            f"{len(names)} run keys, which must differ from one another, and"
            f" {len(subsets.shots)} subsets do not go together"
        )

    def draw(
        table: Table, names: Array, subsets: Subset, key: Key, step: Any, shard: Shard = WHOLE
    ) -> Batch:
        mine = jnp.argmax(jnp.all(names == jax.random.key_data(key)[None], axis=-1))
        order_key, transform_key = jax.random.split(key)
        turns = shard.of(step * batch + jnp.arange(batch, dtype=jnp.int32))
        subset = Subset(subsets.key[mine], subsets.shots[mine])
        rows, labels = in_turn(table, subset, order_key, turns)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(transform_key, turns)
        return Batch(jax.vmap(transform)(keys, table.x[rows]), labels)

    subsets = Subset(subsets.key, jnp.asarray(subsets.shots, jnp.int32))
    return Partial(draw, table, jnp.asarray(names), subsets)
