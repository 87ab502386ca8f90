"""The prior over tables: what it promises, facts by NumPy, and the parts that it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.sets import tables as module
from jaxdl.data.sets.real_tables import random_split, real_table
from jaxdl.data.sets.tables import Lots, tables, with_lots
from jaxdl.errors import InputError

SIZES = {"shots": (8, 20), "queries": 5, "features": (2, 5), "classes": (2, 4)}
COUNT = 2000


@pytest.fixture(scope="module")
def many():
    """Many tables by one compiled program."""
    return jax.jit(jax.vmap(tables(**SIZES)))


@pytest.fixture(scope="module")
def drawn(many):
    return jax.tree.map(np.asarray, many(jax.random.split(jax.random.key(0), COUNT)))


def counts(drawn):
    """Columns, labelled rows and classes of each table."""
    here = drawn.support.weight > 0
    classes = np.where(here, drawn.support.y, -1).max(1) + 1
    # Of 8 rows or more, a column that is there is not all missing, but for one table in 10^5.
    return drawn.support.x.known.any(1).sum(1), here.sum(1), classes


def test_shapes_and_masks(drawn):
    support, query = drawn
    assert support.x.values.shape == support.x.known.shape == (COUNT, 20, 5)
    assert query.x.values.shape == (COUNT, 5, 5)
    assert support.y.dtype == query.y.dtype == np.int32
    assert np.isfinite(support.x.values).all()
    assert np.isfinite(query.x.values).all()
    features = counts(drawn)[0]
    for part in drawn:
        absent = np.arange(5) >= features[:, None]
        assert not (part.x.known & absent[:, None]).any()


def test_each_class_has_a_labelled_row_and_no_other_class_is_asked(drawn):
    here, classes = drawn.support.weight > 0, counts(drawn)[2]
    for c in range(4):
        has = ((drawn.support.y == c) & here).any(1)
        np.testing.assert_array_equal(has, c < classes)
    assert (drawn.query.y < classes[:, None]).all()
    assert (drawn.query.y >= 0).all()


def test_the_numbers_are_drawn_as_said(drawn):
    """Columns and rows evenly; c classes of W as the power 1.5 of an even number. A chi-squared
    test fails for one seed in ten thousand."""
    features, rows, classes = counts(drawn)
    of_classes = np.diff((np.arange(4) / 3) ** (1 / 1.5))
    for found, low, chances in (
        (features, 2, np.full(4, 1 / 4)),
        (rows, 8, np.full(13, 1 / 13)),
        (classes, 2, of_classes),
    ):
        seen = np.bincount(found - low, minlength=len(chances))
        assert stats.chisquare(seen, chances * COUNT).pvalue > 1e-4


def test_three_tables_of_five_have_all_cells_and_three_cells_in_a_hundred_are_missing(drawn):
    """The mean of max(u - 0.6, 0) * 0.75 is 0.06, in half of the columns."""
    features = counts(drawn)[0]
    there = np.arange(5) < features[:, None]
    missing = ~drawn.support.x.known & there[:, None]
    share = missing.sum((1, 2)) / (20 * features)
    assert share.mean() == pytest.approx(0.03, abs=0.005)
    # A table of the other two fifths may have all cells, too.
    assert 0.6 < np.mean(share == 0) < 0.75


def test_labels_belong_to_their_rows(drawn):
    """The nearest class mean says more of them than of the labels of other rows of the table."""
    right, wrong = [], []
    for i in range(500):
        here = drawn.support.weight[i] > 0
        x, y = drawn.support.x.values[i][here], drawn.support.y[i][here]
        means = np.stack([x[y == c].mean(0) for c in range(y.max() + 1)])
        asked, labels = drawn.query.x.values[i], drawn.query.y[i]
        far = np.square((asked[:, None] - means[None]) / (x.std(0) + 1e-6))
        found = (far * drawn.support.x.known[i].any(0)).sum(2).argmin(1)
        right += [np.mean(found == labels)]
        wrong += [np.mean(found == np.roll(labels, 1))]
    assert np.mean(right) > np.mean(wrong) + 0.1


def test_a_table_is_a_function_of_its_key(many, drawn):
    keys = jax.random.split(jax.random.key(0), COUNT)[::-1]
    again = jax.tree.map(lambda leaf: np.asarray(leaf)[::-1], many(keys))
    jax.tree.map(np.testing.assert_array_equal, again, drawn)
    assert not np.array_equal(drawn.support.x.values[0], drawn.support.x.values[1])


# ---- parts


def lots(seed=0, count=20_000):
    return Lots(jax.random.uniform(jax.random.key(seed), (count,)))


def test_lots_are_used_once_and_have_their_distributions():
    found = lots()
    u, n, b = found.uniform(50, 80), found.normal(4000), found.below(7, 4000)
    assert found.used == 12_000
    np.testing.assert_array_equal(u.ravel(), found.numbers[:4000])
    assert stats.kstest(np.asarray(u).ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(np.asarray(n), "norm").pvalue > 1e-3
    assert stats.chisquare(np.bincount(np.asarray(b), minlength=7)).pvalue > 1e-3
    drawn = with_lots(jax.random.key(1), lambda lots: (lots.uniform(3), lots.uniform()))
    numbers = jax.random.uniform(jax.random.key(1), (4,))
    np.testing.assert_array_equal(np.append(*drawn), numbers)


def test_ranks_and_orders_are_numpys():
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    found = jax.jit(module.ranks)(x)
    np.testing.assert_array_equal(found, stats.rankdata(x, axis=0) - 1)
    np.testing.assert_array_equal(jax.jit(module.order)(x[:, 0]), np.argsort(x[:, 0]))


def test_bins_are_between_values_of_rows_and_have_codes_of_their_own():
    x = np.random.default_rng(0).normal(size=50).astype("float32")
    y = np.asarray(jax.jit(lambda x: module.bins(lots(), x, jnp.int32(3), 5))(x))
    assert set(y) <= {0, 1, 2}
    inorder = y[np.argsort(x)]
    assert np.sum(inorder[1:] != inorder[:-1]) == len(set(y)) - 1


def test_trees_split_on_allowed_columns_alone_and_a_leaf_has_one_score():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    allowed = np.array([False, True, False, False])
    score = jax.jit(lambda x: module.tree_scores(lots(3), x, jnp.asarray(allowed), 2))
    found = np.asarray(score(x))
    other = x + np.where(allowed, 0, 5).astype("float32")
    np.testing.assert_array_equal(score(other), found)
    # Steps of a single column: scores change at some of the sorted values only.
    steps = np.any(np.diff(found[np.argsort(x[:, 1])], axis=0) != 0, axis=1).sum()
    assert 0 < steps <= module.TREES * module.SPLITS


def test_every_class_gets_a_row_and_those_come_first():
    y = np.array([2, 2, 0, 2, 0, 2, 2], "int32")  # no row of class 1, and 3 does not count
    run = jax.jit(lambda y: module.with_all_classes(lots(), y, jnp.int32(3), 4))
    found, at = map(np.asarray, run(y))
    assert sorted(at) == list(range(7))
    assert sorted(found[at[:3]]) == [0, 1, 2]
    assert np.sum(found != y) == 1


def test_levels_are_few_whole_numbers_and_some_keep_the_order():
    x = np.random.default_rng(0).normal(size=(60, 40)).astype("float32")
    found = np.asarray(jax.jit(lambda x: module.levels(lots(1), x))(x))
    assert set(np.unique(found)) <= set(range(module.LEVELS))
    ordered = [
        (np.diff(column[np.argsort(of)]) >= 0).all()
        for column, of in zip(found.T, x.T, strict=True)
    ]
    assert 10 <= sum(ordered) <= 32  # half, and those of two values by chance
    assert all(2 <= len(set(column)) <= module.LEVELS for column in found.T)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"shots": (3, 9), "classes": (2, 4)}, "as many shots as classes"),
        ({"classes": (1, 4)}, "at least 2 classes"),
        ({"features": (5, 2)}, r"features=\(5, 2\) is no range"),
        ({"queries": 0}, "queries=0 must be a whole number"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(sizes, words):
    with pytest.raises(InputError, match=words):
        tables(**sizes)


@pytest.mark.parametrize(("name", "rows"), [("iris", 140), ("digits", 9)])
def test_rows_that_cannot_be_divided_are_told(name, rows):
    with pytest.raises(InputError, match=f"cannot be divided into {rows} and 50"):
        random_split(*real_table(name), 0, rows=rows)
