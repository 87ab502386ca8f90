from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.warp import affine
from jaxdl.errors import InputError

ROWS, COLUMNS = np.meshgrid(np.arange(21.0), np.arange(21.0), indexing="ij")


def blob(row, column):
    """A smooth spot, whose centre of mass can be found again."""
    return np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / 8)[..., None]


def centre(image):
    image = np.asarray(image)[..., 0]
    return np.array([(image * ROWS).sum(), (image * COLUMNS).sum()]) / image.sum()


def many(image, count=300, **ranges):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.jit(jax.vmap(partial(affine, **ranges), (0, None)))(keys, jnp.asarray(image))


def test_no_range_changes_nothing(key):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    found = affine(key, jnp.asarray(image))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, image, atol=1e-3)


def test_shifts_are_uniform_and_independent_along_both_axes():
    moved = np.array([centre(image) for image in many(blob(10, 10), pixels=3.0)]) - 10
    assert (np.abs(moved) < 3.05).all()
    assert (moved.max(0) > 2.8).all()
    assert (moved.min(0) < -2.8).all()
    np.testing.assert_allclose(moved.std(0), 3 / 3**0.5, rtol=0.1)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.15


def test_turns_go_about_the_centre_by_angles_of_both_signs():
    turned = np.array([centre(image) for image in many(blob(10, 16), degrees=30.0)]) - 10
    np.testing.assert_allclose(np.hypot(*turned.T), 6, atol=0.1)
    angles = np.degrees(np.arctan2(turned[:, 0], turned[:, 1]))
    assert 28 < angles.max() < 30.5
    assert -30.5 < angles.min() < -28
    np.testing.assert_allclose(angles.std(), 30 / 3**0.5, rtol=0.1)


def test_zoom_moves_what_is_off_centre_away_or_closer():
    found = np.array([centre(image) for image in many(blob(10, 13), zoom=0.2)]) - 10
    np.testing.assert_allclose(found[:, 0], 0, atol=0.05)
    assert 3.55 < found[:, 1].max() < 3.62
    assert 2.38 < found[:, 1].min() < 2.45


def test_outside_is_zero():
    images = np.asarray(many(np.full((21, 21, 1), 200, np.uint8), pixels=4.0))
    assert images.max() <= 200.01
    # Only shifts below half a pixel leave nothing from outside, which 1 in 64 is.
    assert np.mean(images.reshape(len(images), -1).min(1) == 0) > 0.9


@pytest.mark.parametrize("wrong", [{"degrees": -1.0}, {"pixels": -1.0}, {"zoom": 1.0}])
def test_ranges_that_cannot_be_meant(key, wrong):
    with pytest.raises(InputError, match="affine cannot"):
        affine(key, jnp.zeros((3, 3, 1)), **wrong)
