"""Equal images in two splits of a data set: a test on images of the training set says too much.

Class-disjoint splits are not image-disjoint. CIFAR-FS has 15 such pairs, FC100 has 3.
"""

from collections.abc import Mapping
from hashlib import blake2b
from itertools import combinations

import numpy as np
from jaxtyping import Int

from jaxdl.errors import InputError

Pairs = dict[tuple[str, str], Int[np.ndarray, "pairs 2"]]
"""For each two splits, the rows `[pairs, 2]` of equal images: in the first, and in the second."""


def cross_split_duplicates(images_of_split: Mapping[str, np.ndarray]) -> Pairs:
    """All pairs of exactly equal images that lie in two different splits.

    >>> import jaxdl, numpy as np
    >>> train, test = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[3, 4], [7, 8]])
    >>> {two: rows.tolist() for two, rows in jaxdl.cross_split_duplicates(
    ...     {"train": train, "test": test}).items()}
    {('train', 'test'): [[1, 0]]}

    Args:
        images_of_split: arrays `[n, ...]` by the name of the split. `n` may differ.

    Returns:
        For each two splits, in the order given, int64 rows `[pairs, 2]`: those of the first split
        ascend. An image that comes twice in one split and once in the other makes two pairs. Pairs
        inside one split are not told.

    Raises:
        InputError: if the images of two splits differ in shape or type.
    """
    images = {name: np.asarray(of) for name, of in images_of_split.items()}
    _check_alike(images)
    digests = {name: [_digest(image) for image in of] for name, of in images.items()}
    return {
        (one, other): _equal(digests[one], digests[other])
        for one, other in combinations(digests, 2)
    }


def drop_duplicates(
    arrays_of_split: Mapping[str, tuple[np.ndarray, ...]],
) -> dict[str, tuple[np.ndarray, ...]]:
    """The splits without the images that a later split has too.

    Name the splits in the order training, validation, test. Then the test set stays whole, and
    results on it compare with those of others.

    >>> import jaxdl, numpy as np
    >>> train, test = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[3, 4], [7, 8]])
    >>> splits = {"train": (train, np.array([0, 0, 1])), "test": (test, np.array([2, 3]))}
    >>> images, labels = jaxdl.drop_duplicates(splits)["train"]
    >>> images.tolist(), labels.tolist()
    ([[1, 2], [5, 6]], [0, 1])

    Args:
        arrays_of_split: for each split, the images `[n, ...]` and other arrays `[n, ...]` with a
            row per image, such as the labels.

    Returns:
        The same arrays with fewer rows, in their order. The last split is as it was.

    Raises:
        InputError: as `cross_split_duplicates`, or if arrays of one split differ in length.
    """
    for name, arrays in arrays_of_split.items():
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) != 1:
            raise InputError(
                f"the arrays of the split {name} have {lengths} rows. Give images first, and then"
                " arrays with one row per image"
            )
    images = {name: arrays[0] for name, arrays in arrays_of_split.items()}
    kept = {name: np.ones(len(of), bool) for name, of in images.items()}
    for (earlier, _), rows in cross_split_duplicates(images).items():
        kept[earlier][rows[:, 0]] = False
    return {
        name: tuple(np.asarray(array)[kept[name]] for array in arrays)
        for name, arrays in arrays_of_split.items()
    }


def _digest(image: np.ndarray) -> bytes:
    """128 bits that differ for different images: two in 10^9 agree with probability 10^-21."""
    return blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def _equal(one: list[bytes], other: list[bytes]) -> Int[np.ndarray, "pairs 2"]:
    rows_of: dict[bytes, list[int]] = {}
    for row, digest in enumerate(other):
        rows_of.setdefault(digest, []).append(row)
    pairs = [(row, twin) for row, digest in enumerate(one) for twin in rows_of.get(digest, ())]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _check_alike(images: dict[str, np.ndarray]) -> None:
    kinds = {name: (of.dtype, of.shape[1:]) for name, of in images.items()}
    for (one, kind), (other, another) in combinations(kinds.items(), 2):
        if kind != another:
            raise InputError(
                f"images of {one} are {kind[0]} [n, {_shape(kind[1])}], but those of {other} are"
                f" {another[0]} [n, {_shape(another[1])}]. Give all splits one shape and type"
            )


def _shape(lengths: tuple[int, ...]) -> str:
    return ", ".join(map(str, lengths))
