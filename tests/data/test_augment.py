"""Augmentation against exact enumeration of what may come out, and how often."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.augment import alternating_flip, cutout, flip, normalise, translate
from jaxdl.data.epochs import Visit, epochs
from jaxdl.errors import InputError
from jaxdl.types import Shard

IMAGE = np.arange(1, 6 * 7 * 3 + 1, dtype=np.uint8).reshape(6, 7, 3)
"""No two pixels are equal, so that a crop tells where it comes from."""


def draws(function, count, image=IMAGE):
    keys = jax.random.split(jax.random.key(1), count)
    return np.asarray(jax.jit(jax.vmap(function, (0, None)))(keys, jnp.asarray(image)))


def assert_uniform(counts, draws):
    """Pearson's statistic is chi-squared: its mean is the degrees of freedom, variance twice."""
    counts = np.asarray(counts)
    expected = draws / counts.size
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert abs(statistic - (counts.size - 1)) < 4 * np.sqrt(2 * (counts.size - 1))


@pytest.mark.parametrize("border", ["reflect", "zeros"])
def test_translate_draws_every_offset_equally_often_and_invents_no_pixel(border):
    pixels = 2
    modes = {"reflect": "reflect", "zeros": "constant"}
    padded = np.pad(IMAGE, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=modes[border])
    crops = {padded[i : i + 6, j : j + 7].tobytes(): 5 * i + j for i in range(5) for j in range(5)}
    assert len(crops) == 25
    found = draws(partial(translate, pixels=pixels, border=border), 5000)
    assert found.dtype == np.uint8
    places = [crops[each.tobytes()] for each in found]  # KeyError: a pixel was invented
    assert_uniform(np.bincount(places, minlength=25), 5000)


def test_flip_mirrors_left_and_right_with_the_probability():
    found = draws(partial(flip, probability=0.3), 4000)
    flipped = (found == IMAGE[:, ::-1]).all(axis=(1, 2, 3))
    same = (found == IMAGE).all(axis=(1, 2, 3))
    assert (flipped ^ same).all()
    assert abs(flipped.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 9])
def test_cutout_has_the_squares_of_every_centre_and_no_other(size):
    expected = {}
    for row in range(6):
        for column in range(7):
            image = IMAGE.copy()
            top, left = row - size // 2, column - size // 2
            image[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
            expected.setdefault(image.tobytes(), []).append((row, column))
    found = draws(partial(cutout, size=size), 4200)
    counts = dict.fromkeys(expected, 0)
    for each in found:
        counts[each.tobytes()] += 1
    # Where borders make two squares equal, each centre counts.
    rates = [counts[image] / len(places) for image, places in expected.items() for _ in places]
    assert min(rates) > 0
    if 0 < size < 4:  # no two centres give the same square
        assert len(expected) == 42
        assert_uniform(rates, 4200)
        # An inner square has the whole area; averaged over centres the border takes its share.
        cut = (found == 0).all(axis=3).sum(axis=(1, 2))
        assert cut.max() == size**2


def test_normalise_is_the_formula_in_float64():
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    found = normalise(jnp.asarray(IMAGE), mean, std)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (IMAGE / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    batch = normalise(jnp.asarray(IMAGE)[None], mean, std)
    np.testing.assert_array_equal(batch[0], found)


def stream_of(images, batch):
    def transform(key, image, visit):
        return alternating_flip(visit, image)

    return epochs(images, np.arange(len(images)), batch=batch, transform=transform, visits=True)


def one_epoch(stream, key, epoch, count):
    found = stream(key, epoch)
    order = np.argsort(found.y)
    assert (found.y[order] == np.arange(count)).all()
    return np.asarray(found.x)[order, 0, 0, 0] == 1  # the right side came to the left


def test_each_image_is_flipped_in_every_other_epoch_and_half_of_them_in_the_first():
    count = 400
    images = np.tile(np.array([[[0], [1]]], np.uint8), (count, 1, 1, 1))
    stream = stream_of(images, count)
    first, second, third = (one_epoch(stream, jax.random.key(0), e, count) for e in range(3))
    assert abs(first.mean() - 0.5) < 4 * np.sqrt(0.25 / count)
    np.testing.assert_array_equal(second, ~first)
    np.testing.assert_array_equal(third, first)
    other = one_epoch(stream, jax.random.key(1), 0, count)
    assert abs((other == first).mean() - 0.5) < 4 * np.sqrt(0.25 / count)


@pytest.mark.slow
def test_any_number_of_devices_draws_the_same():
    images = np.random.default_rng(0).integers(0, 255, (40, 6, 7, 3), np.uint8)

    def transform(key, image, visit):
        flip_key, move_key, cut_key = jax.random.split(key, 3)
        image = alternating_flip(visit, flip(flip_key, image))
        return cutout(cut_key, translate(move_key, image, pixels=2, border="reflect"), size=3)

    stream = epochs(images, np.arange(40), batch=16, transform=transform, visits=True)
    key = jax.random.key(3)
    whole = stream(key, 2)  # crosses the end of the first epoch
    for parts in (2, 4):
        shares = [stream(key, 2, Shard(i, parts)) for i in range(parts)]
        np.testing.assert_array_equal(np.concatenate([s.x for s in shares]), whole.x)
        np.testing.assert_array_equal(np.concatenate([s.y for s in shares]), whole.y)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: translate(key, IMAGE, pixels=-1),
        lambda key: translate(key, IMAGE, pixels=6, border="reflect"),
        lambda key: translate(key, IMAGE, pixels=1, border="wrap"),
        lambda key: cutout(key, IMAGE, size=-1),
    ],
)
def test_what_cannot_be_meant_is_refused(call, key):
    with pytest.raises(InputError, match="Choose"):
        call(key)


def test_the_visit_does_not_change_what_is_drawn_without_it(key):
    images = np.arange(10, dtype=np.uint8)
    plain = epochs(images, images, batch=5, transform=lambda k, x: x + jax.random.uniform(k))
    asked = epochs(
        images, images, batch=5, transform=lambda k, x, v: x + jax.random.uniform(k), visits=True
    )
    for step in range(3):
        np.testing.assert_array_equal(plain(key, step).x, asked(key, step).x)


def test_a_visit_is_the_epoch_and_the_examples_own_key(key):
    stream = epochs(
        np.zeros(6), np.arange(6), batch=6, visits=True, transform=lambda k, x, visit: visit
    )
    turns = [stream(key, step) for step in range(3)]
    by_example = []
    for epoch, turn in enumerate(turns):
        visit: Visit = turn.x
        assert (visit.epoch == epoch).all()
        by_example.append(jax.random.key_data(visit.key)[np.argsort(turn.y)])
    np.testing.assert_array_equal(by_example[0], by_example[1])
    np.testing.assert_array_equal(by_example[0], by_example[2])
    assert len(np.unique(by_example[0], axis=0)) == 6
