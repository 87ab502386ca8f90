"""Pixels of a picture as a task: against NumPy, counts, keys, and what learners make of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.sets.completion import completion, places
from jaxdl.errors import InputError
from jaxdl.losses import gaussian_nll
from jaxdl.meta.cnp import cnp
from jaxdl.train.streams import task_stream
from jaxdl.types import Batch, Model

HEIGHT, WIDTH, CHANNELS = 6, 5, 2
PIXELS = HEIGHT * WIDTH
IMAGES = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, CHANNELS), np.uint8)
SMALL = {"shots": (3, 12), "queries": (2, 9), "points": 20}


def drawn(count, images=IMAGES, **options):
    """Episodes of so many keys, drawn by one compiled program."""
    keys = jax.random.split(jax.random.key(1), count)
    both = jax.jit(jax.vmap(completion(images, **{**SMALL, **options})))(keys)
    return jax.tree.map(np.asarray, both)


def same(params, x, *, key=None, weight=None):
    return x


def pixels_of(x):
    """The numbers of pixels at places `[..., 2]`, row by row."""
    row, column = np.moveaxis((x + 1) / 2 * [HEIGHT - 1, WIDTH - 1], -1, 0)
    assert np.abs(row - row.round()).max() < 1e-4
    assert np.abs(column - column.round()).max() < 1e-4
    return (row.round() * WIDTH + column.round()).astype(int)


def picture_of(x, y):
    """The number of the picture that has these values at these places."""
    values = IMAGES.reshape(4, PIXELS, CHANNELS)[:, pixels_of(x)] / 255 - 0.5
    (found,) = np.flatnonzero(np.abs(values - y).max(axis=(1, 2)) < 1e-6)
    return found


@pytest.fixture(scope="module")
def many():
    return drawn(2000)


def test_values_are_those_of_one_picture_and_no_pixel_occurs_twice(many):
    support, query = many
    for e in range(200):
        given, asked = (part.weight[e] > 0 for part in many)
        chosen = np.concatenate([pixels_of(support.x[e][given]), pixels_of(query.x[e][asked])])
        assert len(set(chosen)) == len(chosen) == given.sum() + asked.sum()
        picture = picture_of(support.x[e][given], support.y[e][given])
        assert picture == picture_of(query.x[e][asked], query.y[e][asked])


def test_weights_count_the_drawn_pixels_and_other_rows_are_zeros(many):
    given, asked = (part.weight.sum(axis=1).astype(int) for part in many)
    for part, count, most in zip(many, (given, asked), (12, 9), strict=True):
        assert part.x.shape == (2000, most, 2)
        assert part.y.shape == (2000, most, CHANNELS)
        np.testing.assert_array_equal(part.weight, np.arange(most) < count[:, None])
        assert not part.x[part.weight == 0].any()
        assert not part.y[part.weight == 0].any()
    assert stats.chisquare(np.bincount(given, minlength=13)[3:]).pvalue > 1e-3
    for count in (3, 12):  # the queries are uniform in 2 to 9, or to what 20 points leave
        of_count = np.bincount(asked[given == count])[2:]
        assert len(of_count) == min(9, 20 - count) - 1
        assert stats.chisquare(of_count).pvalue > 1e-3


def test_each_picture_and_each_pixel_is_drawn_as_often_as_the_others(many):
    support, query = many
    pictures = [picture_of(x[:3], y[:3]) for x, y in zip(support.x, support.y, strict=True)]
    assert stats.chisquare(np.bincount(pictures, minlength=4)).pvalue > 1e-3
    for part in (support, query):
        first = np.bincount(pixels_of(part.x[:, 0]), minlength=PIXELS)
        assert stats.chisquare(first).pvalue > 1e-3


def test_all_pixels_are_queries_row_by_row_and_those_of_the_support_set_do_not_count():
    support, query = drawn(20, shots=(3, 12), queries=None)
    for e in range(20):
        picture = picture_of(query.x[e], query.y[e])
        np.testing.assert_allclose(
            query.y[e], IMAGES[picture].reshape(PIXELS, CHANNELS) / 255 - 0.5, atol=1e-6
        )
        np.testing.assert_array_equal(pixels_of(query.x[e]), np.arange(PIXELS))
        given = support.weight[e] > 0
        assert picture == picture_of(support.x[e][given], support.y[e][given])
        known = np.isin(np.arange(PIXELS), pixels_of(support.x[e][given]))
        np.testing.assert_array_equal(query.weight[e], ~known)


def test_a_key_decides_the_episode_and_fewer_shots_are_a_part_of_more():
    sample = jax.jit(completion(IMAGES, **SMALL))
    one, again, other = (sample(jax.random.key(seed)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, again))
    assert not bool((one.support.x == other.support.x).all())
    few, many = (drawn(5, shots=shots, queries=None) for shots in (4, 9))
    assert few.support.weight is None
    np.testing.assert_array_equal(few.support.x, many.support.x[:, :4])
    np.testing.assert_array_equal(few.support.y, many.support.y[:, :4])
    np.testing.assert_array_equal(few.query.y, many.query.y)


def test_pictures_are_an_argument_of_the_program_and_floats_keep_their_values():
    stream = task_stream(completion(IMAGES, **SMALL), tasks=2)
    assert any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(stream))
    floats = (IMAGES / 255).astype(np.float32)
    for one, other in zip(drawn(3), drawn(3, floats), strict=True):
        np.testing.assert_allclose(one.y, other.y, atol=1e-6)


def test_masked_pixels_are_as_if_cut_and_no_query_sees_another():
    """Of one learner; tests/meta/test_neural_process.py has all of them."""
    learner = cnp(Model(lambda key, x: (), same), gaussian_nll, ways=CHANNELS, width=4)
    support, query = jax.tree.map(lambda leaf: leaf[0], drawn(1))
    count, key = int(support.weight.sum()), jax.random.key(0)
    assert count < len(support.y)
    params = jax.jit(learner.init)(key, support.x)

    @jax.jit
    def predict(support, x):
        return learner.predict(learner.adapt(key, params, support), x)

    whole = predict(support, query.x)
    cut = predict(Batch(support.x[:count], support.y[:count]), query.x)
    moved = predict(support, np.float32([[0.3, 0.3], *query.x[1:]]))
    for one, other, changed in zip(whole, cut, moved, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(one[1:], changed[1:], atol=1e-6)
        assert np.abs(one[0] - changed[0]).max() > 1e-4


def test_places_go_from_minus_1_to_1_row_by_row():
    x = places(HEIGHT, WIDTH)
    np.testing.assert_allclose(x[WIDTH + 1], [-1 + 2 / (HEIGHT - 1), -1 + 2 / (WIDTH - 1)], 1e-6)
    np.testing.assert_array_equal(pixels_of(x), np.arange(PIXELS))


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (IMAGES[0], {}, r"images are \[6, 5, 2\]\. Give them as \[n, height"),
        (IMAGES.astype(int), {}, "must be uint8 or float"),
        (IMAGES, {"shots": (3, 19)}, "cannot be drawn. Pictures have 30 pixels"),
        (IMAGES, {"points": 400, "shots": 29}, "cannot be drawn. Pictures have 30 pixels"),
        (IMAGES, {"queries": None, "shots": 30}, "cannot be drawn"),
        (IMAGES, {"queries": 0}, "queries=0 must be a whole number"),
    ],
)
def test_mistakes_are_refused(images, options, words):
    with pytest.raises(InputError, match=words):
        completion(images, **{**SMALL, **options})
