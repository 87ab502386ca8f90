import numpy as np
import pytest

from jaxdl.data.area import box_weights, ink_by_area, ink_by_nearest


def boxes_by_repetition(image, side):
    """Each pixel cut into side x side equal pieces, and whole boxes of pieces averaged."""
    fine = np.repeat(np.repeat(image.astype(np.int64), side, 0), side, 1)
    height, width = image.shape
    return fine.reshape(side, height, side, width).sum((1, 3)) / (height * width)


@pytest.mark.parametrize(("shape", "side"), [((105, 105), 28), ((7, 10), 3), ((28, 28), 28)])
def test_area_averaging_is_the_mean_over_each_box(shape, side):
    ink = np.random.default_rng(0).random((3, *shape)) < 0.2
    found = ink_by_area(np.where(ink, 0, 255).astype(np.uint8)[..., None], side)
    assert found.shape == (3, side, side, 1)
    assert found.dtype == np.uint8
    for image, small in zip(ink, found[..., 0], strict=True):
        expected = np.floor(boxes_by_repetition(image, side) * 255 + 0.5)
        np.testing.assert_array_equal(small, expected)


def test_ink_is_255_and_paper_0():
    white = np.full((1, 105, 105, 1), 255, np.uint8)
    assert np.all(ink_by_area(white, 28) == 0)
    assert np.all(ink_by_area(0 * white, 28) == 255)
    one = white.copy()
    one[0, 0, 104] = 0  # one pixel of ink in the upper right corner: 16 / 225 of its box
    found = ink_by_area(one, 28)
    assert found[0, 0, 27, 0] == round(255 * 16 / 225)
    assert np.count_nonzero(found) == 1


@pytest.mark.parametrize("shape", [(105, 105), (7, 10), (30, 31), (28, 28)])
def test_the_nearest_pixel_is_that_of_pillow_by_lanczos_on_one_bit(shape):
    """105 / 28 and the others have no centre on a border, where rounding would decide."""
    pillow = pytest.importorskip("PIL.Image")
    paper = np.random.default_rng(0).random((3, *shape)) < 0.5
    found = ink_by_nearest(np.where(paper, 255, 0).astype(np.uint8)[..., None], 28)
    assert found.dtype == np.uint8
    for image, small in zip(paper, found[..., 0], strict=True):
        theirs = pillow.fromarray(image).resize((28, 28), pillow.LANCZOS).convert("L")
        np.testing.assert_array_equal(small, 255 - np.asarray(theirs))


def test_box_weights_share_every_cell_out_completely():
    weights = box_weights(105, 28)
    np.testing.assert_array_equal(weights.sum(0), 28)
    np.testing.assert_array_equal(weights.sum(1), 105)
