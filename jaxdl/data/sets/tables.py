"""Synthetic tables for classification: a prior over data sets, drawn on the device.

The prior of a tabular in-context learner (Hollmann et al. 2023, arXiv:2207.01848). A table is made
in five stages, and each draws its own structure: causes, a random net that mixes them, columns
picked from its nodes, classes, and last what a table hides of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erfinv
from jaxtyping import Bool, Float, Int

from jaxdl.data.ranges import Range, Span, check_count, check_range
from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Cells, Count, Episode, Key, Sampler, Scalar

NODES, DEPTH = 24, 2
"""Nodes per layer of the random net, and layers."""
TREES, SPLITS = 6, 3
"""The most trees whose leaves add up, and the most splits from root to leaf."""
LEVELS = 8
"""The most values of a categorical column."""
KINDS = {"groups": 0.4, "linear": 0.2, "trees": 0.2, "bins": 0.2}
"""How classes are made, and the share of tables: before the columns, as groups of rows; by linear
maps of the columns, or by trees, of which the highest score wins; by bins of a weighted sum."""

Rows = Float[Array, "n _"]


class Lots:
    """Random numbers that functions take one after another from one draw.

    Each draw of JAX takes a second to compile, and a table needs forty.
    """

    def __init__(self, numbers: Float[Array, " count"] | None = None) -> None:
        self.numbers, self.used = numbers, 0

    def uniform(self, *shape: int) -> Array:
        """In [0, 1)."""
        begin, count = self.used, 1
        for side in shape:
            count *= side
        self.used += count
        if self.numbers is None:
            return jnp.zeros(shape)
        return self.numbers[begin : self.used].reshape(shape)

    def normal(self, *shape: int) -> Array:
        """Of mean 0 and variance 1."""
        return jnp.sqrt(2.0) * erfinv(jnp.clip(2 * self.uniform(*shape) - 1, -1 + 1e-6, 1 - 1e-6))

    def below(self, limit: Any, *shape: int) -> Array:
        """Whole numbers from 0 to `limit - 1`."""
        return jnp.minimum(jnp.floor(self.uniform(*shape) * limit).astype("int32"), limit - 1)


def with_lots(key: Key, use: Callable[[Lots], Any]) -> Any:
    """`use(lots)`, with as many random numbers as it takes."""
    count = Lots()
    jax.eval_shape(lambda: use(count))
    return use(Lots(jax.random.uniform(key, (count.used,))))


class Sizes(NamedTuple):
    """Of a table: rows to learn from, columns and classes."""

    shots: Count
    features: Count
    classes: Count


def standard(x: Rows) -> Rows:
    """Columns of mean 0 and deviation 1; a constant column is 0."""
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    return centred / (jnp.sqrt(jnp.mean(jnp.square(centred), axis=0, keepdims=True)) + 1e-6)


def ranks(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """How many are smaller, along the first axis. It counts pairs, because a sort is slow to
    compile."""
    return jnp.sum(x[:, None] > x[None], axis=1)


def order(x: Float[Array, " n"]) -> Int[Array, " n"]:
    """The indices of distinct numbers, the smallest first."""
    return jnp.zeros(len(x), "int32").at[ranks(x)].set(jnp.arange(len(x), dtype="int32"))


def causes(lots: Lots, group: Int[Array, " n"], groups: int) -> Float[Array, "n nodes"]:
    """Noise around a random centre per group of rows: in one table far apart, in another not.

    Few causes in one table, many in another. Noise is normal, uniform or skewed.
    """
    table, shape = lots.uniform(3), lots.uniform(1, NODES)
    rows, centres = lots.normal(len(group), NODES), lots.normal(groups, NODES)
    even = 1.73 * lax.erf(rows / jnp.sqrt(2.0))
    skewed = jnp.exp(0.7 * rows) - 1.3
    rows = jnp.where(shape < 0.2, even, jnp.where(shape > 0.8, skewed, rows))
    # A part of the causes has the groups in it, and the others do not.
    informed = lots.uniform(1, NODES) < 0.3 + 0.7 * table[1]
    rows = rows + (0.5 + 3.5 * table[0]) * informed * centres[group]
    count = 2 + (NODES // 2 - 2) * jnp.square(table[2])
    return standard(rows) * (jnp.arange(NODES)[None] < count)


def bent(kind: Float[Array, "#one nodes"], x: Float[Array, "n nodes"]) -> Float[Array, "n nodes"]:
    """Each column through one of eight functions, by a number in [0, 1)."""
    curved = jnp.tanh(2 * x), jax.nn.relu(x), jnp.sin(2 * x), jnp.abs(x), jnp.square(x)
    forms = (x, x, *curved, jnp.sign(x) + 0.1 * x)
    at, found = jnp.floor(kind * len(forms)), x
    for i, form in enumerate(forms):
        found = jnp.where(at == i, form, found)
    return found


def net(lots: Lots, x: Float[Array, "n nodes"]) -> list[Float[Array, "n nodes"]]:
    """The nodes of a random net, its input first: sparse or dense, linear or bent, with noise."""
    table, layers = lots.uniform(3), [x]
    level = jnp.where(table[2] < 0.4, 0, jnp.square(table[2] - 0.4))
    for _ in range(DEPTH):
        kinds = lots.uniform(1, NODES)
        # One table in three is linear, and in one of three all nodes of a layer are bent alike.
        kinds = jnp.where(table[0] < 0.33, 0, jnp.where(table[0] < 0.67, kinds[:, :1], kinds))
        mask = lots.uniform(NODES, NODES) < 0.1 + 0.9 * jnp.square(table[1])
        mixed = standard(layers[-1] @ (lots.normal(NODES, NODES) * mask))
        found = standard(bent(kinds, mixed + 0.5 * lots.normal(1, NODES)))
        layers.append(found + level * lots.normal(*x.shape))
    return layers


def columns(
    lots: Lots, nodes: list[Float[Array, "n nodes"]], count: int
) -> Float[Array, "n count"]:
    """Random nodes as columns, of all layers or of few; some noisy, some skewed."""
    table, depth, rows = lots.uniform(3), len(nodes), len(nodes[0])
    layer = 6 * table[0] * lots.normal(depth)
    gumbel = -jnp.log(-jnp.log(lots.uniform(depth * NODES) * 0.999 + 5e-4))
    every = jnp.concatenate(nodes, axis=1)
    # A node that does not vary is no column, unless there is no other.
    varies = jnp.where(jnp.std(every, axis=0) > 1e-3, 0.0, -50.0)
    chosen = order(-(jnp.repeat(layer, NODES) + gumbel + varies))[:count]
    level = jnp.where(table[1] < 0.6, 0, 4 * jnp.square(table[1] - 0.6))
    x = standard(every[:, chosen]) + level * lots.normal(rows, count)
    skew = jnp.where((lots.uniform(count) < 0.5) & (table[2] < 0.5), lots.uniform(count), 0)[None]
    return jnp.where(skew > 0, jnp.expm1(skew * x) / jnp.maximum(skew, 0.1), x)


def used(lots: Lots, present: Bool[Array, " features"]) -> Bool[Array, " features"]:
    """The columns that classes depend on: one of those present, or some, or all."""
    share = jnp.square(lots.uniform())
    lot = jnp.where(present, lots.uniform(len(present)), 2)
    return present & ((lot < 0.1 + 0.9 * share) | (lot == jnp.min(lot)))


def linear_scores(
    lots: Lots, x: Rows, allowed: Bool[Array, " features"], classes: int
) -> Float[Array, "n classes"]:
    """A random linear map per class, of the allowed columns."""
    return (standard(x) * allowed[None]) @ lots.normal(x.shape[1], classes)


def tree_scores(
    lots: Lots, x: Rows, allowed: Bool[Array, " features"], classes: int
) -> Float[Array, "n classes"]:
    """A sum of trees that split on allowed columns at the value of a random row, as boosting does.

    All nodes of a level have the same split. The number of trees and of levels is random.
    """
    trees, splits = 1 + lots.below(TREES), 1 + lots.below(SPLITS)
    lot = jnp.where(allowed[None], lots.uniform(TREES * SPLITS, x.shape[1]), -1)
    at, row = jnp.argmax(lot, axis=1), lots.below(len(x), TREES * SPLITS)
    right = (x[:, at] > x[row, at][None]).reshape(len(x), TREES, SPLITS)
    level = jnp.arange(SPLITS)
    leaf = jnp.sum(right * jnp.where(level < splits, 2**level, 0)[None, None], axis=2)
    values = lots.normal(TREES, 2**SPLITS, classes)
    of_trees = values[jnp.arange(TREES)[None], leaf]
    return jnp.sum(of_trees * (jnp.arange(TREES) < trees)[None, :, None], axis=1)


def bins(lots: Lots, x: Float[Array, " n"], classes: Count, most: int) -> Int[Array, " n"]:
    """The bin of each number, between the values of random rows, in a random order."""
    border = x[lots.below(len(x), most - 1)]
    counts = jnp.arange(most - 1) < classes - 1
    found = jnp.sum((x[:, None] > border[None]) & counts[None], axis=1)
    codes = ranks(lots.uniform(most) + jnp.where(jnp.arange(most) < classes, 0, 1))
    return codes[found]


def winners(scores: Float[Array, "n classes"], bias: Float[Array, " classes"]) -> Int[Array, " n"]:
    """The class of the highest score, each standardised first; the bias makes classes unequal."""
    return jnp.argmax(standard(scores) + bias[None], axis=1)


def with_all_classes(
    lots: Lots, y: Int[Array, " n"], classes: Count, most: int
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Classes, and an order of the rows that begins with one row of each.

    A class without rows gets a random one.
    """
    lot, last = lots.uniform(most, len(y)), lots.uniform(len(y))

    def reserve(c: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        y, first = state
        row = jnp.argmax(lot[c] + 2.0 * (y == c) - 4.0 * first)
        here = (jnp.arange(len(y)) == row) & (c < classes)
        return jnp.where(here, c, y), jnp.where(here, 1.0, first)

    y, first = lax.fori_loop(0, most, reserve, (y, jnp.zeros(len(y))))
    return y, order(last - first)


def levels(lots: Lots, x: Rows) -> Rows:
    """Columns as categories: 2 to 8 values, in half of the columns in no order."""
    rows, count = x.shape
    border = x[lots.below(rows, LEVELS - 1, count), jnp.arange(count)[None]]
    used = jnp.arange(LEVELS - 1)[:, None] < 1 + lots.uniform(1, count) * (LEVELS - 2)
    found = jnp.sum((x[:, None] > border[None]) & used[None], axis=1)
    mixed = jnp.take_along_axis(ranks(lots.uniform(LEVELS, count)), found, axis=0)
    return jnp.where(lots.uniform(1, count) < 0.5, found, mixed).astype(x.dtype)


def hidden(lots: Lots, rows: int, count: int) -> Bool[Array, "rows count"]:
    """Which cells are missing: none in three tables of five; in the others up to 30 % of a part of
    the columns."""
    table = lots.uniform(2)
    rate = jnp.maximum(table[0] - 0.6, 0) * 0.75
    return (lots.uniform(rows, count) < rate) & (lots.uniform(1, count) < table[1])


def table(
    lots: Lots, sizes: Sizes, *, rows: int, features: int, classes: int
) -> tuple[Cells, Int[Array, " rows"]]:
    """One table: cells `[rows, features]` and classes `[rows]`, of which every one of
    `sizes.classes` is among the first `sizes.classes` rows.

    Columns from `sizes.features` on have no known cell.
    """
    chance = lots.uniform(4)
    bias = jnp.where(
        jnp.arange(classes) < sizes.classes, 0.7 * chance[0] * lots.normal(classes), -jnp.inf
    )
    gumbel = -jnp.log(-jnp.log(lots.uniform(rows, classes) * 0.999 + 5e-4))
    group = jnp.argmax(bias[None] + gumbel, axis=1)
    x = columns(lots, net(lots, causes(lots, group, classes)), features)
    present = jnp.arange(features) < sizes.features
    allowed = used(lots, present)
    found = [
        group,
        winners(linear_scores(lots, x, allowed, classes), bias),
        winners(tree_scores(lots, x, allowed, classes), bias),
        bins(lots, linear_scores(lots, x, allowed, 1)[:, 0], sizes.classes, classes),
    ]
    y, limit = found[0], 0.0
    for each, share in zip(found, KINDS.values(), strict=True):
        y, limit = jnp.where(chance[1] >= limit, each, y), limit + share
    wrong = lots.uniform(rows) < 0.5 * jnp.maximum(chance[2] - 0.7, 0)
    y = jnp.where(wrong, lots.below(sizes.classes, rows), y).astype("int32")
    categorical = lots.uniform(1, features) < 2 * chance[3] - 1
    x = jnp.where(categorical, levels(lots, x), x)
    y, at = with_all_classes(lots, y, sizes.classes, classes)
    known = present[None] & ~hidden(lots, rows, features)
    return Cells(x[at], known[at]), y[at]


def tables(
    *,
    shots: Range = (20, 100),
    queries: int = 50,
    features: Range = (2, 20),
    classes: Range = (2, 10),
) -> Sampler:
    """Sampler of one classification table: rows to learn from, and rows to classify.

    Inputs are `Cells` `[shots, features]` and `[queries, features]`. Where a number is a range,
    they have the most of it: the other columns have no known cell, and the other rows of the
    support set have weight 0. Classes are 0, 1, 2 ..., and each has a row of weight 1 in the
    support set. Few classes are more likely than many.

    Args:
        shots: labelled rows, at least as many as the most classes.
        queries: rows to classify, in each table as many.
        features: columns.
        classes: at least 2.

    >>> import jax, jaxdl
    >>> sample = jaxdl.tables(shots=(5, 9), queries=4, features=(2, 3), classes=(2, 5))
    >>> support, query = jax.jit(sample)(jax.random.key(0))
    >>> support.x.values.shape, query.y.shape, 5 <= int(support.weight.sum()) <= 9
    ((9, 3), (4,), True)

    Raises:
        InputError: for numbers of rows, columns or classes that cannot be drawn.
    """
    given, width, ways = (
        check_range(name, each)
        for name, each in (("shots", shots), ("features", features), ("classes", classes))
    )
    asked = check_count("queries", queries)
    if given.fewest < ways.most or ways.fewest < 2:
        raise InputError(
            f"shots={given} and classes={ways} cannot be drawn. Give at least 2 classes, and as"
            " many shots as classes"
        )

    def make(lots: Lots) -> Episode:
        chance = lots.uniform(3) ** jnp.array([1.0, 1.0, 1.5])
        n, k, c = (_count(u, span) for u, span in zip(chance, (given, width, ways), strict=True))
        sizes = {"rows": given.most + asked, "features": width.most, "classes": ways.most}
        cells, y = table(lots, Sizes(n, k, c), **sizes)
        weight = (jnp.arange(given.most) < n).astype("float32")
        first = jax.tree.map(lambda leaf: leaf[: given.most], (cells, y))
        last = jax.tree.map(lambda leaf: leaf[given.most :], (cells, y))
        return Episode(Batch(first[0], first[1], weight), Batch(*last))

    return lambda key: with_lots(key, make)


def _count(uniform: Scalar, span: Span) -> Count:
    width = span.most - span.fewest + 1
    return span.fewest + jnp.minimum((uniform * width).astype("int32"), width - 1)
