"""Two ways to make drawings smaller: exact area averaging, and the nearest pixel."""

import numpy as np
from jaxtyping import Float, UInt8


def ink_by_area(
    images: UInt8[np.ndarray, "n height width 1"], side: int
) -> UInt8[np.ndarray, "n {side} {side} 1"]:
    """The share of ink in each of `side` x `side` equal boxes, in 1/255, rounded half up.

    `images` is uint8 `[n, height, width, 1]`: ink 0, paper 255 (grey counts in proportion). Returns
    uint8 `[n, side, side, 1]`: ink 255, paper 0. It is exact: a pixel on the border of two boxes
    counts in each by its area there.
    """
    n, height, width, _ = images.shape
    rows, columns = box_weights(height, side), box_weights(width, side)
    # All values are integers below 2^53, so the float64 matrix products are exact.
    ink = (255 - images[..., 0]).astype(np.float64)
    total = rows @ ink @ columns.T
    area = height * width
    return ((2 * total + area) // (2 * area)).astype(np.uint8).reshape(n, side, side, 1)


def ink_by_nearest(
    images: UInt8[np.ndarray, "n height width 1"], side: int
) -> UInt8[np.ndarray, "n {side} {side} 1"]:
    """The ink at the centre of each of `side` x `side` equal boxes: one pixel, the others are lost.

    Pillow resizes 1-bit images so by any of its filters, also by Lanczos. Arguments and result are
    those of `ink_by_area`.

    >>> ink_by_nearest(np.array([0, 255, 255, 0, 255], np.uint8).reshape(1, 1, 5, 1), 2).ravel()
    array([  0, 255,   0, 255], dtype=uint8)
    """
    rows, columns = (((2 * np.arange(side) + 1) * n) // (2 * side) for n in images.shape[1:3])
    return 255 - images[:, rows[:, None], columns]


def box_weights(length: int, boxes: int) -> Float[np.ndarray, "{boxes} {length}"]:
    """The overlaps `[boxes, length]` of `boxes` equal parts of a line with its `length` cells.

    The unit is 1/boxes of a cell, so all overlaps are integers. Each row sums to `length`.
    """
    starts, cells = np.arange(boxes) * length, np.arange(length) * boxes
    overlap = np.minimum.outer(starts + length, cells + boxes) - np.maximum.outer(starts, cells)
    return np.maximum(overlap, 0).astype(np.float64)
