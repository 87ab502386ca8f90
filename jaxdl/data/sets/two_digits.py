"""Few-shot classes from scikit-learn's digits, two side by side: numbers 00 to 99, no download.

Ten digits are too few classes. Numbers give a hundred. No two classes look alike, because every
digit stands upright. The splits share neither numbers nor drawings, but they share the digits. A
learner must recognise a digit at its place next to any other digit. The test shows new numbers.
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
        Images, labels and names.

        - Images are uint8 `[N, 8, 16, 1]` in 0..255, ink bright, sorted by class; 87 to 91 per
          class in "train", 34 to 36 in "validation", 53 to 55 in "test". A drawing occurs at most
          once at each place where a number has its digit.
        - Labels are int32 `[N]` in `[0, classes)`.
        - There is a name per class, such as "07".

    Raises:
        InputError: for another split, or without scikit-learn.
    """
    if split not in DRAWINGS:
        raise InputError(f"there is no split {split!r}. Choose train, validation or test")
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
    """min(n, m) numbers of `[n, 8, 8]` and `[m, 8, 8]`; another `shift` pairs other drawings."""
    n = min(len(left), len(right))
    return np.concatenate([left[:n], np.roll(right[:n], shift, axis=0)], axis=2)
