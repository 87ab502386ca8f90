"""Pictures of any size and colours, as the images of one shape that a net takes.

A picture is uint8 `[height, width, 4]`, the last channel alpha, as `decode_image` gives it.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8

from jaxdl.data.area import box_weights
from jaxdl.errors import InputError, extra

Fit = Literal["crop", "squash", "ink"]
"""How a picture becomes an image of another size.

- "crop": the largest centred part of the image's proportions, resized by Lanczos. For a square
  image, the shorter side is resized, and the longer side is cropped to the centre.
- "squash": the whole picture, resized by Lanczos. Its proportions change.
- "ink": as "crop", but by area averaging and inverted: paper (white) is 0 and ink (black) is 255.

Lanczos is Pillow's, whose support grows with the reduction, so it is antialiasing."""


def fit(
    picture: UInt8[np.ndarray, "height width 4"], shape: tuple[int, ...], how: Fit = "crop"
) -> UInt8[np.ndarray, "rows columns channels"]:
    """A picture as an image of `shape`: rows, columns, and 1 (grey) or 3 channels.

    Transparent pixels show white. Colours become grey by the luma of ITU-R 601.

    >>> black = np.full((5, 7, 4), [0, 0, 0, 255], np.uint8)
    >>> fit(black, (2, 2, 1)).ravel().tolist(), fit(black, (2, 2, 1), "ink").ravel().tolist()
    ([0, 0, 0, 0], [255, 255, 255, 255])

    Raises:
        InputError: for another number of channels, rows or columns below 1, or ink in colours; or
            if Pillow is not installed.
    """
    with extra("data"):
        from PIL import Image

    rows, columns, channels = shape
    if min(rows, columns) < 1 or channels not in (1, 3) or (how == "ink" and channels != 1):
        raise InputError(
            f"a picture cannot become an image of shape {list(shape)}. Choose at least 1 pixel, and"
            " 1 channel or 3, for ink 1"
        )
    image = Image.fromarray(on_white(picture))
    image = image.convert("L") if channels == 1 else image
    if how != "squash":
        image = image.crop(centre(image.width, image.height, columns, rows))
    if how == "ink":
        return by_area(255 - np.asarray(image), rows, columns)[..., None]
    resized = np.asarray(image.resize((columns, rows), Image.Resampling.LANCZOS))
    return resized.reshape(rows, columns, channels)


def on_white(
    picture: UInt8[np.ndarray, "height width 4"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The colours of a picture that lies on white, rounded half up.

    >>> on_white(np.array([[[0, 100, 200, 255], [0, 100, 200, 51], [9, 9, 9, 0]]], np.uint8))
    array([[[  0, 100, 200],
            [204, 224, 244],
            [255, 255, 255]]], dtype=uint8)
    """
    colours, alpha = picture[..., :3], picture[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colours)
    # At most 255 * 255 + 127, which uint16 holds.
    total = colours.astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha)
    return ((total + 127) // 255).astype(np.uint8)


def centre(width: int, height: int, columns: int, rows: int) -> tuple[int, int, int, int]:
    """The largest centred box of the proportions `columns:rows`: left, upper, right, lower.

    Its sides are whole pixels. An odd pixel is cut on the right or below.

    >>> centre(7, 4, 1, 1), centre(4, 7, 8, 8), centre(10, 10, 16, 8)
    ((1, 0, 5, 4), (0, 1, 4, 5), (0, 2, 10, 7))
    """
    wide = min(width, max(1, round(height * columns / rows)))
    high = min(height, max(1, round(width * rows / columns)))
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high


def by_area(
    grey: UInt8[np.ndarray, "height width"], rows: int, columns: int
) -> UInt8[np.ndarray, "{rows} {columns}"]:
    """The means of `rows` x `columns` equal boxes, rounded half up, exact as `ink_by_area`."""
    height, width = grey.shape
    total = box_weights(height, rows) @ grey.astype(np.float64) @ box_weights(width, columns).T
    area = height * width
    return ((2 * total + area) // (2 * area)).astype(np.uint8)
