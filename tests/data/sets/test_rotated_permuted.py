"""Rotated and permuted images, against Pillow and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.sets.rotated_permuted import (
    permutations,
    rearranged,
    rotations,
    task_after_task,
    turned,
)
from jaxdl.errors import InputError


@pytest.mark.parametrize("side", [8, 9, 28])
def test_turned_images_are_pillows_bit_for_bit(side):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(side)
    image = rng.integers(1, 256, (side, side)).astype(np.uint8)
    for angle in [*(180 * rng.random(40)), 0, 45, 90, 180]:
        expected = np.asarray(image_module.fromarray(image).rotate(angle)).reshape(-1)
        found = rearranged(jnp.asarray(image)[..., None], jnp.asarray(turned(angle, side)))
        assert found.dtype == jnp.uint8
        np.testing.assert_array_equal(found, expected)


def test_each_task_has_an_angle_of_its_own_part_of_the_range():
    places, angles = rotations(0, 20, 8)
    assert places.shape == (20, 64)
    assert np.all(np.floor(angles / 9) == np.arange(20))
    np.testing.assert_array_equal(places[7], turned(angles[7], 8))
    assert not np.array_equal(angles, rotations(1, 20, 8)[1])


def test_permutations_move_every_pixel_to_a_place_of_its_own():
    places = permutations(0, 5, 64)
    np.testing.assert_array_equal(np.sort(places, axis=1), np.tile(np.arange(64), (5, 1)))
    assert len(np.unique(places, axis=0)) == 5
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
    for own in places:
        found = rearranged(jnp.asarray(image), jnp.asarray(own))
        np.testing.assert_array_equal(found, image.reshape(-1)[own])


def test_the_stream_shows_one_task_after_another_and_no_example_twice():
    tasks, examples, count = 3, 7, 10
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    places = permutations(0, tasks, 4)
    stream = task_after_task(images, np.arange(count), places, examples=examples)
    draw = jax.jit(jax.vmap(lambda key, step: stream(key, step, None), (None, 0)))
    found = draw(jax.random.key(0), jnp.arange(tasks * examples))
    np.testing.assert_array_equal(found.task, np.repeat(np.arange(tasks), examples))
    for n, (task, y) in enumerate(zip(np.asarray(found.task), np.asarray(found.y), strict=True)):
        np.testing.assert_array_equal(found.x[n], images[y].reshape(-1)[places[task]])
    orders = np.asarray(found.y).reshape(tasks, examples)
    assert all(len(set(order)) == examples for order in orders)
    assert len(np.unique(orders, axis=0)) == tasks
    other = draw(jax.random.key(1), jnp.arange(tasks * examples))
    assert not np.array_equal(found.y, other.y)


@pytest.mark.parametrize(
    ("labels", "examples", "words"),
    [(3, 2, "4 examples and 3 labels"), (4, 5, "do not give 5"), (4, 0, "do not give 0")],
)
def test_streams_that_cannot_be_are_refused(labels, examples, words):
    labels = np.zeros(labels, int)
    with pytest.raises(InputError, match=words):
        task_after_task(np.zeros((4, 2, 2, 1)), labels, permutations(0, 2, 4), examples=examples)
