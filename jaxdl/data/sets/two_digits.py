"""Few-shot classes from scikit-learn's digits set side by side: the numbers 00 to 99, no download.

A hundred classes where the ten digits are too few, and none can be taken for another, since every
digit stands upright. The splits share neither numbers nor drawings. They share the digits: what
there is to learn is to see a digit in its place whatever its neighbour, and the test asks for
numbers that were never shown.
"""

import numpy as np

from jaxdl.data.sets.digits import DRAWINGS, Split, all_drawings, part_of
from jaxdl.data.sets.splits import shuffled
from jaxdl.errors import InputError


def numbers_few_shot(split: Split) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The numbers of one split: 64 in "train", 16 in "validation", 20 in "test".

    >>> import jaxdl
    >>> images, labels, names = jaxdl.numbers_few_shot("test")
    >>> images.shape[1:], len(names), names[:3]
    ((8, 16, 1), 20, ['02', '16', '23'])

    Returns:
        images: uint8 `[N, 8, 16, 1]` in 0..255, ink bright, sorted by class; 87 to 91 per class in
            "train", 34 to 36 in "validation", 53 to 55 in "test". Each drawing stands once in each
            place of each number that it is part of.
        labels: int32 `[N]` in `[0, classes)`.
        names: of each class, as "07".

    Raises:
        InputError: for another split, or without scikit-learn.
    """
    if split not in DRAWINGS:
        raise InputError(f"no split {split!r}: ask for train, validation or test")
    names = list(shuffled([f"{n:02d}" for n in range(100)], train=64, validation=16)[split])
    drawings, digits = all_drawings()
    of_digit = [part_of(split, drawings[digits == digit]) for digit in range(10)]
    images = [
        _side_by_side(of_digit[int(name[0])], of_digit[int(name[1])], shift=1 + int(name))
        for name in names
    ]
    counts = [len(of_class) for of_class in images]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return np.concatenate(images)[..., None], labels, names


def _side_by_side(left: np.ndarray, right: np.ndarray, *, shift: int) -> np.ndarray:
    """`[n, 8, 8]` and `[m, 8, 8]` as min(n, m) numbers; `shift` makes other partners each time."""
    n = min(len(left), len(right))
    return np.concatenate([left[:n], np.roll(right[:n], shift, axis=0)], axis=2)
