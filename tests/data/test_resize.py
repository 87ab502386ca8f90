"""Pictures as images of one shape, against values that were worked out by hand."""

import numpy as np
import pytest

from jaxdl.data.area import ink_by_area
from jaxdl.data.resize import centre, fit, on_white
from jaxdl.errors import InputError

RNG = np.random.default_rng(0)


def opaque(colours):
    colours = np.asarray(colours, np.uint8)
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), 255, np.uint8)], axis=2)


def test_white_shows_through_in_proportion_to_alpha():
    picture = RNG.integers(0, 256, (9, 8, 4), np.uint8)
    alpha = picture[..., 3:] / 255
    exact = picture[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_array_equal(on_white(picture), np.floor(exact + 0.5 + 1e-9))


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(4, 9, 0, 2), (7, 4, 1, 0), (4, 4, 0, 0)]
)
def test_a_picture_whose_shorter_side_fits_is_cropped_and_nothing_else(height, width, top, left):
    picture = opaque(RNG.integers(0, 256, (height, width, 3)))
    expected = picture[top : top + 4, left : left + 4, :3]
    np.testing.assert_array_equal(fit(picture, (4, 4, 3)), expected)
    wide = opaque(RNG.integers(0, 256, (4, 9, 3)))
    np.testing.assert_array_equal(fit(wide, (4, 8, 3)), wide[:, :8, :3])


def test_boxes_have_the_proportions_and_lie_in_the_middle():
    for _ in range(200):
        width, height, columns, rows = RNG.integers(1, 40, 4).tolist()
        left, upper, right, lower = centre(width, height, columns, rows)
        assert 0 <= left < right <= width
        assert 0 <= upper < lower <= height
        assert right - left == width or lower - upper == height
        assert abs((right - left) * rows - (lower - upper) * columns) <= max(rows, columns) / 2 or (
            1 in (right - left, lower - upper)
        )
        assert (width - right - left, height - lower - upper) <= (1, 1)


def test_squashed_pictures_keep_their_edges_and_cropped_ones_do_not():
    picture = opaque(np.zeros((8, 16, 3)))
    picture[:, :4, 0], picture[:, -4:, 1] = 255, 255
    squashed, cropped = (fit(picture, (8, 8, 3), how) for how in ("squash", "crop"))
    assert squashed[:, 0, 0].min() > 250 < squashed[:, -1, 1].min()
    assert cropped.max() == 0


def test_making_smaller_averages():
    """A nearest pixel of a checkerboard is black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    found = fit(opaque(np.stack([board] * 3, axis=-1)), (8, 8, 1))
    np.testing.assert_allclose(found[1:-1, 1:-1], 127.5, atol=1)


def test_grey_is_luma():
    picture = opaque(np.array([[[200, 100, 50]]]))
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert fit(picture, (1, 1, 1)).ravel().tolist() == [round(luma)]


def test_ink_is_that_of_omniglot():
    """1-bit drawings of 105 x 105, and others of any proportions."""
    drawing = np.where(RNG.random((105, 105)) < 0.2, 0, 255).astype(np.uint8)
    found = fit(opaque(np.stack([drawing] * 3, axis=-1)), (28, 28, 1), "ink")
    np.testing.assert_array_equal(found, ink_by_area(drawing[None, ..., None], 28)[0])

    wide = RNG.integers(0, 256, (8, 16), np.uint8)  # to 2 x 4: means of 4 x 4
    found = fit(opaque(np.stack([wide] * 3, axis=-1)), (2, 4, 1), "ink")
    means = 255 - wide.reshape(2, 4, 4, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(found[..., 0], np.floor(means + 0.5))


@pytest.mark.parametrize(
    ("shape", "how"), [((0, 4, 3), "crop"), ((4, 4, 2), "crop"), ((4, 4, 3), "ink")]
)
def test_shapes_of_no_image_are_refused(shape, how):
    with pytest.raises(InputError, match=r"cannot become an image of shape .*\. Choose at least 1"):
        fit(opaque(np.zeros((4, 4, 3))), shape, how)
