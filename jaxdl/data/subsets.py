"""Training on subsets of a data set: some examples per class, another subset for each run.

The size and the key of a subset are inputs of the compiled program. So the runs of one `train.loop`
may have subsets of different sizes. With the same key, a smaller subset lies inside a larger one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int, Shaped

from jaxdl.data.epochs import shuffled
from jaxdl.data.inputs import check_fits
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Batch, Count, Key, PyTree, Shard


class Table(NamedTuple):
    """Examples sorted by class: class c has the rows `starts[c]` to `starts[c] + sizes[c]` of x."""

    x: Shaped[Array, "examples ..."]
    starts: Int[Array, " classes"]
    sizes: Int[Array, " classes"]


ALL = 2**30
"""More examples than a class can have."""
SUBSETS = 1_000_001
"""Folded into a seed's key to make its subset key. Run keys fold in the run's index, below it."""


class Subset(NamedTuple):
    """`shots` examples per class (all, if a class has fewer); `key` chooses which.

    Both may be traced, or have a leading axis `[runs]`.
    """

    key: Shaped[Key, "*runs"]
    shots: Int[Array, "*runs"]


class Cells(NamedTuple):
    """The runs of one program: keys, subsets, learning rates, and the index of each run's seed.

    Each has a leading axis `[rates * counts * seeds]`, flattened in this order.
    """

    keys: Shaped[Key, " runs"]
    subsets: Subset
    rates: Float[Array, " runs"]
    seeds: Int[np.ndarray, " runs"]


def cells(keys: Shaped[Key, " seeds"], counts: Sequence[int], rates: Sequence[float]) -> Cells:
    """One run for each learning rate, count of examples per class (0: all) and seed `[seeds]`.

    For the same seed, the subset of a smaller count lies inside that of a larger count.
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

    `classes=None` means one more than the largest label.

    Raises:
        InputError: for other labels, or if an integer of x does not fit into 32 bits.
    """
    x = np.asarray(x)
    check_fits(x)
    y = check_labels(y, len(x), classes=classes)
    names, sizes = np.unique(y, return_counts=True)
    count = int(names[-1]) + 1 if classes is None else classes
    if len(names) < count:
        lacking = np.append(names, -1) != np.arange(len(names) + 1)
        raise InputError(
            f"no example has the label {lacking.argmax()}, but each of 0 to {count - 1} is needed."
            " Number the classes without gaps, by np.unique(labels, return_inverse=True)[1]"
        )
    starts, order = np.cumsum(sizes) - sizes, np.argsort(y, kind="stable")
    as_ints = (jnp.asarray(each, jnp.int32) for each in (starts, sizes))
    return Table(jnp.asarray(x[order]), *as_ints)


def divided(labels: np.ndarray, first: int, second: int) -> tuple[np.ndarray, ...]:
    """Divides a data set into three parts, class by class, and returns the rows `[.]` of each.

    Args:
        labels: integers `[n]` from 0.
        first: examples per class of the first part; -k means all but k, and none of a class that
            has no more.
        second: examples per class of the second part. The third part is the rest.

    Raises:
        InputError: for other labels.
    """
    _, labels = np.unique(check_labels(labels), return_inverse=True)
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    sizes = np.bincount(labels)
    ranks = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels]
    ends = first if first >= 0 else np.maximum(sizes[labels] + first, 0)
    parts = ranks < ends, (ranks >= ends) & (ranks < ends + second), ranks >= ends + second
    return tuple(order[part] for part in parts)


def size(table: Table, shots: Any) -> Count:
    """The size of a subset of `shots` examples per class: int32; `shots` may be traced."""
    return jnp.sum(jnp.minimum(table.sizes, shots))


def members(
    table: Table, subset: Subset, places: Int[Array, " n"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """The table rows and the classes of the examples at these places of a subset.

    Places `[n]` are below `size(table, subset.shots)`. Each place is another example, and class 0
    comes first. All may be traced; nothing is stored or sorted.
    """
    ends = jnp.cumsum(jnp.minimum(table.sizes, subset.shots))
    labels = jnp.searchsorted(ends, places, side="right").astype(jnp.int32)
    ranks = places - jnp.where(labels > 0, ends[labels - 1], 0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(subset.key, labels)
    # The subset is the first `shots` of one fixed order of the whole class.
    found = jax.vmap(shuffled, (0, None, 0, 0))(keys, 0, ranks, table.sizes[labels])
    return table.starts[labels] + found, labels


def in_turn(
    table: Table, subset: Subset, key: Key, turns: Int[Array, " n"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Rows and classes at `turns` `[n]` of an endless sequence, each member once per epoch.

    Each epoch has another order, drawn by `key`.
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
    """Stream of batches in which the run `runs[i]` repeats `subsets[i]`, epoch after epoch.

    It is `data.epochs.epochs` with subsets. Each example comes exactly once per epoch. A batch may
    cross the end of an epoch; it holds an example twice or more if the subset is smaller than the
    batch.

    Args:
        table: see `by_class`.
        batch: examples per step, over all devices.
        transform: turns one stored example `[...]` into the net's input.
        runs: the run keys `[runs]` that `train.loop` gets, all different. A run finds its subset by
            its key. A key that is none of them gets labels of -1, and so a loss of NaN.
        subsets: key and shots, `[runs]` each.

    Returns:
        A `jaxdl.train.loop.Stream` of batches. Table and subsets are arguments of the compiled
        program, so one program serves subsets of any size.

    Raises:
        InputError: if the batch is below 1, or two run keys are equal, or runs and subsets differ
            in number.
    """
    names = np.asarray(jax.random.key_data(runs))
    if batch < 1:
        raise InputError(f"batch={batch} must be at least 1. Choose a larger batch")
    if len(np.unique(names, axis=0)) != len(names) or len(names) != len(subsets.shots):
        raise InputError(
            f"{len(names)} run keys and {len(subsets.shots)} subsets do not match, or two keys are"
            " equal. Give one key per subset, all different"
        )

    def draw(
        table: Table, names: Array, subsets: Subset, key: Key, step: Any, shard: Shard = WHOLE
    ) -> Batch:
        is_mine = jnp.all(names == jax.random.key_data(key)[None], axis=-1)
        mine = jnp.argmax(is_mine)
        order_key, transform_key = jax.random.split(key)
        turns = shard.of(step * batch + jnp.arange(batch, dtype=jnp.int32))
        subset = Subset(subsets.key[mine], subsets.shots[mine])
        rows, labels = in_turn(table, subset, order_key, turns)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(transform_key, turns)
        labels = jnp.where(jnp.any(is_mine), labels, -1)  # no label, so that the loss is NaN
        return Batch(jax.vmap(transform)(keys, table.x[rows]), labels)

    subsets = Subset(subsets.key, jnp.asarray(subsets.shots, jnp.int32))
    return Partial(draw, table, jnp.asarray(names), subsets)
