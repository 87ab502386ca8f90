"""Overlaid digits against NumPy: where they lie, who meets whom, and shares among devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.sets.multimnist import overlaid_epochs, overlaid_pairs, overlay
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Shard

N, SIDE, OFFSET = 10, 6, 2
IMAGES = np.random.default_rng(0).integers(1, 256, (N, SIDE, SIDE, 1), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, N)
# The pixels that one image alone covers tell which one it is.
LEFT = {image[0].tobytes(): i for i, image in enumerate(IMAGES)}
RIGHT = {image[-1].tobytes(): i for i, image in enumerate(IMAGES)}


def by_numpy(left, right, offset):
    canvas = np.zeros((SIDE + offset, SIDE + offset, 1), left.dtype)
    canvas[:SIDE, :SIDE] = left
    canvas[offset:, offset:] = np.maximum(canvas[offset:, offset:], right)
    return canvas


def pairs_in(canvases):
    """Which image lies left and which right in each canvas `[n, 8, 8, 1]`."""
    return [
        (LEFT[canvas[0, :SIDE].tobytes()], RIGHT[canvas[-1, OFFSET:].tobytes()])
        for canvas in np.asarray(canvases)
    ]


@pytest.mark.parametrize("offset", [0, 2, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_canvas_has_the_first_image_at_the_top_left(offset, dtype):
    left, right = IMAGES[:2].astype(dtype)
    canvas = overlay(jnp.asarray(left), jnp.asarray(right), offset=offset)
    assert canvas.dtype == dtype
    np.testing.assert_array_equal(canvas, by_numpy(left, right, offset))


def test_digits_of_28_pixels_make_a_canvas_of_36():
    assert overlay(jnp.ones((28, 28, 1)), jnp.ones((28, 28, 1))).shape == (36, 36, 1)


def drawn(steps, *, batch=4, seed=0, shard=WHOLE):
    stream = overlaid_epochs(
        IMAGES, LABELS, batch=batch, transform=lambda canvas: canvas, offset=OFFSET
    )
    draw = jax.jit(lambda stream, step: stream(jax.random.key(seed), step, shard))
    return [draw(stream, jnp.int32(step)) for step in range(steps)]


def test_each_image_comes_once_an_epoch_on_each_side_and_pairs_change():
    batches = drawn(5)
    pairs = [pair for batch in batches for pair in pairs_in(batch.x)]
    labels = np.concatenate([batch.y for batch in batches])
    np.testing.assert_array_equal(labels, LABELS[np.array(pairs)])
    assert labels.dtype == np.int32
    epochs = np.array(pairs).reshape(2, N, 2)
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.tile(np.arange(N)[:, None], (2, 1, 2))
    )
    assert (
        (epochs[:, :, 0] != epochs[:, :, 1]).any(axis=1).all()
    )  # the sides have orders of their own
    assert len({tuple(pair) for pair in pairs}) > N  # and so has each epoch
    whole = np.concatenate([batch.x for batch in batches])
    for canvas, (left, right) in zip(whole, pairs, strict=True):
        np.testing.assert_array_equal(canvas, by_numpy(IMAGES[left], IMAGES[right], OFFSET))
    assert pairs != [pair for batch in drawn(5, seed=1) for pair in pairs_in(batch.x)]


def test_two_devices_draw_what_one_draws():
    halves = [drawn(3, shard=Shard(index, 2)) for index in range(2)]
    for whole, *parts in zip(drawn(3), *halves, strict=True):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_pairs_to_judge_on_hold_each_image_once_a_side_and_never_with_itself():
    seen = set()
    for seed in range(5):
        canvases, labels = overlaid_pairs(jax.random.key(seed), IMAGES, LABELS, offset=OFFSET)
        pairs = pairs_in(canvases)
        assert [left for left, _ in pairs] == list(range(N))
        assert sorted(right for _, right in pairs) == list(range(N))
        assert all(left != right for left, right in pairs)
        np.testing.assert_array_equal(labels, LABELS[np.array(pairs)])
        for canvas, (left, right) in zip(np.asarray(canvases), pairs, strict=True):
            np.testing.assert_array_equal(canvas, by_numpy(IMAGES[left], IMAGES[right], OFFSET))
        seen.add(tuple(pairs))
    assert len(seen) == 5


def test_wrong_arguments():
    image = jnp.ones((4, 4, 1))
    with pytest.raises(InputError, match="offset=-1"):
        overlay(image, image, offset=-1)
    with pytest.raises(InputError, match="two images of one shape"):
        overlay(image, image[:3])
    with pytest.raises(InputError, match="one image makes no pair"):
        overlaid_pairs(jax.random.key(0), image[None], np.zeros(1, int))
    with pytest.raises(InputError, match="2 examples and 3 labels make no data set"):
        overlaid_pairs(jax.random.key(0), jnp.stack([image] * 2), np.zeros(3, int))
    with pytest.raises(InputError, match="make no data set"):
        overlaid_epochs(IMAGES, LABELS[1:], batch=2, transform=lambda canvas: canvas)
