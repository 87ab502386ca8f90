"""The rule of Meta-Dataset beside NumPy in float64, and the distribution of what is drawn.

Each example of these tests says who it is: [class, example].
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.episodes import few_shot
from jaxdl.data.meta_dataset import meta_dataset_few_shot, shots_and_queries
from jaxdl.errors import InputError

LIMITS = {"max_queries": 10, "max_support": 500, "max_shots": 100}


def ids(counts):
    who = [(c, e) for c, count in enumerate(counts) for e in range(count)]
    who = np.random.default_rng(0).permutation(who)
    return who, who[:, 0]


def draw_many(episodes, counts, **options):
    sample = meta_dataset_few_shot(*ids(counts), **options)
    found = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(1), episodes))
    return jax.tree.map(np.asarray, found)


def rows_that_count(batch, episode):
    real = batch.weight[episode] > 0
    return batch.x[episode][real].astype(int), batch.y[episode][real]


def assert_uniform(values, numbers):
    observed = np.array([np.sum(values == number) for number in numbers])
    assert observed.sum() == np.size(values)
    assert stats.chisquare(observed).pvalue > 1e-3, observed


def by_the_paper(sizes, beta, alpha, max_queries, max_support, max_shots):
    """Section 3.2 of the paper, in its order, for the classes of one episode."""
    queries = min(max_queries, *(int(size) // 2 for size in sizes))
    support = min(
        max_support, sum(int(np.ceil(beta * min(max_shots, size - queries))) for size in sizes)
    )
    total = sum(np.exp(a) * size for a, size in zip(alpha, sizes, strict=True))
    shots = [
        min(
            int(np.floor(np.exp(a) * size / total * (support - len(sizes)))) + 1,
            size - queries,
        )
        for a, size in zip(alpha, sizes, strict=True)
    ]
    return shots, queries


@pytest.mark.parametrize(
    "limits",
    [LIMITS, {"max_queries": 3, "max_support": 12, "max_shots": 7}],
    ids=["the paper's", "small"],
)
def test_shots_and_queries_are_those_of_the_paper(limits):
    rng = np.random.default_rng(0)
    rule = jax.jit(lambda *given: shots_and_queries(*given, **limits))
    most = 12
    for _ in range(300):
        ways = rng.integers(1, most + 1)
        sizes = rng.integers(2, rng.choice([4, 40, 2000]), most)
        beta, alpha = 1 - rng.random(), rng.uniform(np.log(0.5), np.log(2), most)
        beta, alpha = np.float32(beta), alpha.astype(np.float32)
        found, asked = rule(jnp.asarray(sizes), jnp.arange(most) < ways, beta, alpha)
        expected, queries = by_the_paper(
            sizes[:ways].tolist(), float(beta), alpha[:ways].astype(float), **limits
        )
        assert int(asked) == queries
        np.testing.assert_array_equal(found[:ways], expected)
        assert not found[ways:].any()
        assert ways <= found.sum() <= max(ways, limits["max_support"])


def test_ways_are_uniform_up_to_the_number_of_classes():
    episode = draw_many(3000, [6] * 7, ways=(3, 50))
    ways = [len(set(rows_that_count(episode.support, i)[1].tolist())) for i in range(3000)]
    assert_uniform(np.array(ways), range(3, 8))


def test_the_share_beta_is_uniform():
    """One class of 20 has 10 queries, and 1 to 10 shots, each as likely."""
    episode = draw_many(3000, [20], ways=1)
    shots = (episode.support.weight > 0).sum(axis=1)
    assert_uniform(shots, range(1, 11))
    assert ((episode.query.weight > 0).sum(axis=1) == 10).all()


def test_the_exponents_alpha_are_uniform():
    """Of two classes of one size: the difference of two exponents has a triangular density."""
    episode = draw_many(6000, [300, 300], ways=2, max_support=102, max_shots=1000)
    shots = np.stack(
        [((episode.support.y == y) & (episode.support.weight > 0)).sum(1) for y in (0, 1)]
    )
    first = shots[0][shots.sum(axis=0) >= 101]  # beta was not so small that there are fewer
    assert 4000 < len(first) < 5500
    span = np.log(4)
    edges = np.arange(20, 81, 4)  # floor(100 R) + 1 > edge where R >= edge / 100
    difference = stats.triang(0.5, loc=-span, scale=2 * span)
    below = difference.cdf(np.log(edges / (100 - edges)))
    assert (below[0], below[-1]) == pytest.approx((0, 1))
    observed = np.histogram(first - 1, edges)[0]
    assert observed.sum() == len(first)
    assert stats.chisquare(observed, np.diff(below) * len(first)).pvalue > 1e-3


COUNTS = [3, 9, 4, 30, 120, 2, 6, 55]


def test_each_episode_keeps_to_the_rule_and_draws_no_example_twice():
    episode = draw_many(300, COUNTS, ways=(2, 6))
    sizes = np.asarray(COUNTS)
    for i in range(300):
        (x, y), (asked, label) = (rows_that_count(part, i) for part in episode)
        every = np.concatenate([x, asked])
        assert len(set(map(tuple, every.tolist()))) == len(every)
        assert (every[:, 1] < sizes[every[:, 0]]).all()
        classes = dict(zip(y.tolist(), x[:, 0].tolist(), strict=True))
        ways = len(classes)
        assert sorted(classes) == list(range(ways))
        assert len(set(classes.values())) == ways
        for labels, who in ((y, x), (label, asked)):
            assert [classes[each] for each in labels.tolist()] == who[:, 0].tolist()
            assert (np.diff(labels) >= 0).all()
        smallest = min(COUNTS[c] for c in classes.values())
        assert np.bincount(label).tolist() == [min(10, smallest // 2)] * ways
        shots = np.bincount(y)
        assert (shots >= 1).all()
        assert (shots + min(10, smallest // 2) <= sizes[[classes[w] for w in range(ways)]]).all()


def test_examples_and_classes_are_equally_likely():
    episode = draw_many(4000, [7, 5, 9], ways=(1, 2))
    first = episode.support.x[:, 0].astype(int)
    assert_uniform(first[:, 0], range(3))
    asked = episode.query.x[:, 0].astype(int)
    for c, count in enumerate([7, 5, 9]):
        assert_uniform(first[first[:, 0] == c, 1], range(count))
        assert_uniform(asked[asked[:, 0] == c, 1], range(count))


def test_the_support_set_is_one_block_and_queries_have_one_per_class():
    episode = draw_many(200, COUNTS, ways=(2, 6), max_queries=4, max_support=30)
    assert episode.support.x.shape == (200, 30, 2)
    assert episode.query.x.shape == (200, 24, 2)
    assert (np.diff(episode.support.weight, axis=1) <= 0).all()
    np.testing.assert_array_equal(episode.query.y, np.tile(np.repeat(np.arange(6), 4), (200, 1)))
    assert (np.diff(episode.query.weight.reshape(200, 6, 4), axis=2) <= 0).all()
    for batch in episode:
        assert set(batch.x[batch.weight == 0][:, 0]) <= set(batch.x[batch.weight > 0][:, 0])
        assert ((batch.y >= 0) & (batch.y < 6)).all()
    few = draw_many(1, [4, 3, 9], ways=(1, 2), max_shots=5)
    assert few.support.x.shape == (1, 5 + 3, 2)  # there cannot be more, whatever is drawn
    assert few.query.x.shape == (1, 2 * 4, 2)


def test_inputs_labels_and_weights_are_those_of_few_shot():
    x, labels = ids([9, 9, 9])
    tree = {"tokens": x, "bytes": np.full(27, 255, np.uint8)}
    names, weights = np.array(["a", "b", "c"])[labels], 1.0 + x[:, 0]
    sample = meta_dataset_few_shot(tree, names, ways=(2, 3), weights=weights)
    support, _ = jax.jit(sample)(jax.random.key(0))
    real = np.asarray(support.weight) > 0
    tokens = np.asarray(support.x["tokens"])
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(support.x["bytes"], 1.0)  # padding repeats an example
    np.testing.assert_array_equal(support.weight, np.where(real, 1 + tokens[:, 0], 0))
    plain = few_shot(tree, names, ways=2, shots=1, queries=1)(jax.random.key(0)).support
    assert jax.tree.map(lambda leaf: leaf.dtype, support.x) == jax.tree.map(
        lambda leaf: leaf.dtype, plain.x
    )


def test_many_keys_at_once_give_the_same_episodes_as_one_at_a_time():
    sample = meta_dataset_few_shot(*ids(COUNTS), ways=(2, 4))
    keys = jax.random.split(jax.random.key(2), 4)
    alone = [jax.jit(sample)(key) for key in keys]
    alone = jax.tree.map(lambda *values: jnp.stack(values), *alone)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(sample))(keys), alone)


def test_a_class_of_one_example_is_left_out_and_named():
    with pytest.warns(
        UserWarning, match=r"1 of 4 classes, 1 \(1\), have fewer than 2 examples and"
    ):
        episode = draw_many(100, [4, 1, 5, 6], ways=(2, 4))
    assert set(np.unique(episode.support.x[..., 0][episode.support.weight > 0])) == {0, 2, 3}
    assert set(np.unique(episode.support.y)) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ways": (4, 9)}, r"ways=\(4, 9\), but there are only 3 classes of 2 examples or more"),
        ({"ways": (2, 1)}, "is no range"),
        ({"max_support": 2}, "max_support=2 is less than one example for each of 3 ways"),
        ({"max_shots": 0}, "max_shots=0 must be a whole number of at least 1"),
        ({"max_queries": (1, 2)}, r"max_queries=\(1, 2\) must be a whole number"),
        ({"scale": 2.0}, "scale=2.0 is for uint8 and floats"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        meta_dataset_few_shot(*ids([4, 1, 5, 6]), **{"ways": (2, 5), **change})
