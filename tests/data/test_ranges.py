"""Episodes whose numbers of ways, shots and queries vary, and classes of unequal sizes.

Each example of these tests says who it is: [class, example].
"""

import itertools
import warnings
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.episodes import few_shot
from jaxdl.data.ranges import divide
from jaxdl.errors import InputError


def ids(counts):
    """`counts[c]` examples of class c in random order, and their labels."""
    who = [(c, e) for c, count in enumerate(counts) for e in range(count)]
    who = np.random.default_rng(0).permutation(who)
    return who, who[:, 0]


def draw_many(episodes, counts, *, ways, shots, queries, **options):
    """`(x, y, weight)` of both parts of many episodes, as NumPy arrays."""
    sample = few_shot(*ids(counts), ways=ways, shots=shots, queries=queries, **options)
    found = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(1), episodes))
    return jax.tree.map(np.asarray, found)


def assert_uniform(values, numbers):
    observed = np.array([np.sum(values == number) for number in numbers])
    assert observed.sum() == np.size(values)
    assert stats.chisquare(observed).pvalue > 1e-3, observed


def counts_of(batch, ways):
    """How many rows that count each label has, `[episodes, ways]`."""
    return np.array(
        [
            np.bincount(y[weight > 0], minlength=ways)
            for y, weight in zip(batch.y, batch.weight, strict=True)
        ]
    )


# The rule for a class that is too small.


def test_a_small_class_is_divided_in_proportion_and_at_least_one_each():
    """All sizes and requests up to 12, beside exact fractions."""
    for shots, queries in itertools.product(range(1, 13), repeat=2):
        sizes = np.arange(2, 28)
        found = np.asarray(divide(jnp.asarray(sizes), shots, queries)).T
        for size, (support, query) in zip(sizes.tolist(), found.tolist(), strict=True):
            if size >= shots + queries:
                assert (support, query) == (shots, queries)
                continue
            share = Fraction(size * shots, shots + queries)
            rounded = int(share + Fraction(1, 2))
            assert support == min(max(rounded, 1), size - 1)
            assert support + query == size
            assert 1 <= support <= shots
            assert 1 <= query <= queries


# Ranges.

LARGE = [30, 25, 41, 30, 22, 28]


def test_the_padding_is_behind_the_rows_of_each_class_and_the_ways():
    ways, shots, queries = (2, 4), (1, 3), (2, 5)
    episode = draw_many(300, LARGE, ways=ways, shots=shots, queries=queries)
    for batch, (fewest, most) in zip(episode, (shots, queries), strict=True):
        assert batch.x.shape == (300, 4 * most, 2)
        np.testing.assert_array_equal(batch.y, np.tile(np.repeat(np.arange(4), most), (300, 1)))
        assert batch.weight.dtype == np.float32
        assert set(batch.x[batch.weight == 0][:, 0]) <= set(batch.x[batch.weight > 0][:, 0])
        weight = batch.weight.reshape(300, 4, most)
        assert set(np.unique(weight)) == {0, 1}
        assert (np.diff(weight, axis=2) <= 0).all()
        given = weight.sum(axis=2)
        assert (np.diff(given, axis=1) <= 0).all()  # as many of each class, and none of the last
        assert (np.unique(given[:, 0]) == np.arange(fewest, most + 1)).all()
        assert set(np.unique(given)) == {0, *range(fewest, most + 1)}
        present = given > 0
        assert set(present.sum(axis=1)) == {2, 3, 4}
        assert (given == np.where(present, given[:, :1], 0)).all()
    both = [counts_of(batch, 4) > 0 for batch in episode]
    np.testing.assert_array_equal(*both)


def test_each_number_of_a_range_is_equally_likely_and_independent_of_the_others():
    support, query = draw_many(4000, LARGE, ways=(1, 3), shots=(2, 4), queries=(1, 2))
    ways = (counts_of(support, 3) > 0).sum(axis=1)
    shots, queries = (counts_of(part, 3)[:, 0] for part in (support, query))
    assert_uniform(ways + 10 * shots + 100 * queries, [
        w + 10 * s + 100 * q for w in (1, 2, 3) for s in (2, 3, 4) for q in (1, 2)
    ])  # fmt: skip


def test_classes_and_examples_are_equally_likely_with_ranges_too():
    support, query = draw_many(4000, [7, 5, 9], ways=(1, 2), shots=(1, 2), queries=(1, 2))
    first = support.x[:, 0].astype(int)
    assert_uniform(first[:, 0], range(3))
    last = query.x[:, 0].astype(int)
    for c, count in enumerate([7, 5, 9]):
        assert_uniform(first[first[:, 0] == c, 1], range(count))
        assert_uniform(last[last[:, 0] == c, 1], range(count))


def test_classes_and_examples_are_drawn_independently_of_the_numbers():
    """Each has random bits of its own: all triples of ways, shots and first class, or example."""
    support, query = draw_many(6000, [4] * 4, ways=(1, 2), shots=(1, 2), queries=(1, 2))
    ways = (counts_of(support, 2) > 0).sum(axis=1)
    shots, queries = (counts_of(part, 2)[:, 0] for part in (support, query))
    numbers = 4 * (ways - 1) + 2 * (shots - 1) + queries - 1
    for drawn in support.x[:, 0].astype(int).T:
        assert_uniform(8 * drawn + numbers, range(32))


COUNTS = [3, 9, 4, 30, 3, 2, 6]


@pytest.mark.parametrize(
    ("ways", "shots", "queries"),
    [((2, 7), (1, 5), (1, 6)), (4, (1, 8), 3), ((1, 3), 1, (1, 40)), (3, 1, (2, 3))],
)
def test_support_and_query_are_distinct_examples_of_the_class_that_the_label_means(
    ways, shots, queries
):
    episode = draw_many(300, COUNTS, ways=ways, shots=shots, queries=queries)
    for i in range(300):
        parts = [(b.x[i][b.weight[i] > 0], b.y[i][b.weight[i] > 0]) for b in episode]
        x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        assert len({tuple(who) for who in x.tolist()}) == len(x)
        assert len({*zip(y.tolist(), x[:, 0].tolist(), strict=True)}) == len(set(y.tolist()))
        assert len(set(x[:, 0].tolist())) == len(set(y.tolist()))
        assert (x[:, 1] < np.asarray(COUNTS)[x[:, 0]]).all()


def test_a_class_that_is_too_small_gives_what_the_rule_says():
    """Whatever is drawn: of each class of an episode, the rule by the numbers of a large class."""
    episode = draw_many(2000, COUNTS, ways=7, shots=(1, 5), queries=(1, 6))
    given = np.stack([counts_of(batch, 7) for batch in episode], axis=-1)
    classes = episode.support.x.reshape(2000, 7, 5, 2)[:, :, 0, 0].astype(int)
    asked = given[classes == 3]  # has 30 examples, so it gives all that is asked
    assert set(map(tuple, asked.tolist())) == set(itertools.product(range(1, 6), range(1, 7)))
    for i, (shots, queries) in enumerate(asked.tolist()):
        rule = divide(np.asarray(COUNTS)[classes[i]], shots, queries)
        np.testing.assert_array_equal(given[i].T, rule)


def test_a_range_of_one_number_is_that_number():
    plain, pairs = (
        few_shot(*ids(LARGE), ways=w, shots=s, queries=q)(jax.random.key(3))
        for w, s, q in ((2, 1, 4), ((2, 2), [1, 1], (4, 4)))
    )
    assert pairs.support.weight is None
    jax.tree.map(np.testing.assert_array_equal, plain, pairs)


def test_ways_end_at_the_number_of_classes():
    support, _ = draw_many(200, [5, 5, 5], ways=(2, 50), shots=1, queries=1)
    assert support.y.shape == (200, 3)
    assert set(support.weight.sum(axis=1)) == {2, 3}


@pytest.mark.parametrize("rotations", ["augment", "classes"])
def test_rotated_images_are_padded_as_others(rotations):
    images = np.zeros((20, 2, 2, 1), np.float32)
    images[:, 0, :, 0] = np.random.default_rng(0).normal(size=(20, 2))
    sample = few_shot(
        images, np.arange(20) // 5, ways=(2, 4), shots=(1, 3), queries=2, rotations=rotations
    )
    support, query = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 300))
    for batch in (support, query):
        x, weight = np.asarray(batch.x), np.asarray(batch.weight)
        known = {np.rot90(image, k).tobytes() for image in images for k in range(4)}
        assert {row.tobytes() for row in x[weight > 0]} == known
        assert {row.tobytes() for row in x[weight == 0]} <= known


def test_many_keys_at_once_give_the_same_episodes_as_one_at_a_time():
    sample = few_shot(*ids(COUNTS), ways=(2, 4), shots=(1, 3), queries=(1, 3))
    keys = jax.random.split(jax.random.key(2), 5)
    alone = [jax.jit(sample)(key) for key in keys]
    alone = jax.tree.map(lambda *values: jnp.stack(values), *alone)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(sample))(keys), alone)


# Classes that are too small.


def test_a_class_without_shots_and_a_query_is_left_out_and_named():
    x, labels = ids([9, 3, 8, 2, 9])
    names = np.array(["cow", "ant", "bee", "dog", "eel"])
    with pytest.warns(UserWarning, match="left out") as told:
        sample = few_shot(x, names[labels], ways=(2, 3), shots=(3, 4), queries=1)
    assert str(told[0].message) == (
        "2 of 5 classes, ant (3), dog (2), have fewer than 4 examples and are left out. Choose"
        " fewer shots to keep them"
    )
    assert len(told) == 1
    support, _ = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 200))
    real = np.asarray(support.x)[np.asarray(support.weight) > 0]
    assert set(real[:, 0].tolist()) == {0, 2, 4}


def test_of_many_classes_the_first_are_named():
    with pytest.warns(UserWarning, match=r"8 of 10 classes, 0 \(1\), .* 4 \(1\) and 3 more, have"):
        few_shot(*ids([1] * 8 + [4, 4]), ways=2, shots=2, queries=2)


def test_plain_numbers_and_a_class_that_is_too_small_make_padding_and_a_warning():
    with pytest.warns(UserWarning, match="padded") as told:
        episode = draw_many(200, [4, 9, 9], ways=3, shots=3, queries=3)
    assert str(told[0].message) == (
        "1 of 3 classes, 0 (4), have fewer than 6 examples and give fewer shots and queries, so"
        " batches are padded and have weights. Choose fewer of both for episodes of one size"
    )
    with pytest.warns(UserWarning, match="fewer than 6 examples and give fewer"):
        few_shot(*ids([4, 9, 9]), ways=(2, 3), shots=3, queries=3)
    small = episode.support.x.reshape(200, 3, 3, 2)[:, :, 0, 0] == 0
    for batch in episode:
        counts = counts_of(batch, 3)
        assert (counts[small] == 2).all()
        assert (counts[~small] == 3).all()


def test_large_classes_and_ranges_are_no_reason_for_a_warning():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        few_shot(*ids([4, 4, 4]), ways=2, shots=2, queries=2)
        few_shot(*ids([3, 9, 4]), ways=2, shots=(1, 5), queries=(1, 9))
    assert not told


def test_too_few_classes_are_refused_after_others_are_left_out():
    with pytest.raises(
        InputError, match=r"or 4 at least, which leaves 2 of 4 classes for ways=\(3, 4"
    ):
        few_shot(*ids([4, 4, 3, 1]), ways=(3, 4), shots=(3, 9), queries=2)
    with pytest.warns(UserWarning, match="left out"):
        few_shot(*ids([5, 5, 3, 1]), ways=(2, 4), shots=(3, 9), queries=2)


# Weights.


@pytest.mark.parametrize("shots", [2, (1, 2)])
def test_weights_of_examples_travel_with_them_and_change_no_draw(shots):
    x, labels = ids([5, 6, 7])
    weights = 1 + 100 * x[:, 0] + x[:, 1]
    options = {"ways": 2, "shots": shots, "queries": 3}
    keys = jax.random.split(jax.random.key(0), 200)
    plain, weighted = (
        jax.jit(jax.vmap(few_shot(x, labels, weights=w, **options)))(keys) for w in (None, weights)
    )
    for one, other in zip(plain, weighted, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        who = np.asarray(other.x)
        expected = 1.0 + 100 * who[..., 0] + who[..., 1]
        padding = np.zeros(who.shape[:2], bool) if one.weight is None else one.weight == 0
        np.testing.assert_array_equal(other.weight, np.where(padding, 0, expected))
        assert other.weight.dtype == jnp.float32


def test_an_example_of_weight_0_is_never_drawn_and_is_no_example_of_its_class():
    """A class must not come in queries without a support example that counts."""
    x, labels = ids([5, 6, 4])
    weights = (x[:, 1] != 2).astype(int)
    sample = few_shot(x, labels, weights=weights, ways=(2, 3), shots=(1, 2), queries=1)
    assert sample.args[0].counts.tolist() == [4, 5, 3]
    weights[(x[:, 0] == 1) & (x[:, 1] > 0)] = 0
    with pytest.warns(UserWarning, match=r"1 of 3 classes, 1 \(1\), have fewer than 2 examples"):
        sample = few_shot(x, labels, weights=weights, ways=2, shots=(1, 2), queries=(1, 3))
    found = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 300))
    for batch in found:
        drawn = np.asarray(batch.x)[np.asarray(batch.weight) > 0].astype(int)
        assert set(map(tuple, drawn.tolist())) == set(map(tuple, x[weights > 0].tolist())) - {
            (1, 0)
        }
