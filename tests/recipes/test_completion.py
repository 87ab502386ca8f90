"""The baselines of pictures against NumPy."""

import jax
import numpy as np
import pytest

from jaxdl.data.sets.completion import completion, places
from jaxdl.recipes.completion import mean_picture, nearest, nearest_pixel
from jaxdl.types import Batch

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 5, 4, 1), np.uint8)
IMAGES[:, :2] = 17  # without a spread


def predicted(learner, support, x):
    return learner.predict(learner.adapt(KEY, (), support), x)


def test_the_mean_picture_has_mean_and_deviation_of_each_pixel():
    chosen = RNG.permutation(20)[:9]
    mean, scale = predicted(mean_picture(IMAGES, least_scale=0.2), None, places(5, 4)[chosen])
    values = IMAGES.reshape(7, 20, 1)[:, chosen] / 255 - 0.5
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(scale, np.maximum(values.std(axis=0), 0.2), atol=1e-6)
    assert {True, False} == set((np.asarray(scale) > 0.21).ravel())


@pytest.mark.parametrize("masked", [False, True])
def test_the_nearest_pixel_is_that_of_numpy(masked):
    given, asked = (RNG.uniform(-1, 1, (n, 2)).astype(np.float32) for n in (8, 6))
    values = RNG.normal(size=(8, 1)).astype(np.float32)
    counts = np.array([0, 1, 1, 0, 1, 0, 1, 0]) if masked else np.ones(8)
    support = Batch(given, values, counts if masked else None)
    mean, scale = predicted(nearest(0.3), support, asked)
    for row, place in enumerate(asked):
        near = min(np.flatnonzero(counts), key=lambda i, at=place: np.linalg.norm(given[i] - at))
        assert mean[row] == values[near]
    np.testing.assert_allclose(scale, np.full((6, 1), 0.3), rtol=1e-6)


def test_its_scale_is_the_error_on_training_pictures_and_has_a_floor():
    options = {"shots": 6, "key": KEY, "episodes": 5}
    draw, errors = jax.jit(completion(IMAGES, shots=6, queries=None)), []
    for e in range(5):
        support, query = draw(jax.random.split(jax.random.fold_in(KEY, e))[0])
        found = predicted(nearest(1.0), support, query.x).mean
        unknown = np.asarray(query.weight) > 0
        assert unknown.sum() == 14
        errors.append(np.square(np.asarray(found - query.y))[unknown].mean())
    for least, scale in ((0.01, np.sqrt(np.mean(errors))), (9.0, 9.0)):
        learner = nearest_pixel(IMAGES, least_scale=least, **options)
        found = predicted(learner, support, query.x).scale
        np.testing.assert_allclose(found, np.full((20, 1), scale), rtol=1e-5)
