"""Class labels from the host, checked once, on entry.

A compiled program cannot refuse a label. There, -1 trains the last class, and a label without an
output of the net makes the loss NaN.
"""

from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from jaxdl.errors import InputError

MOST = 2**31
"""Labels are int32 on the device."""


def check_labels(
    labels: Any, examples: int | None = None, *, classes: int | None = None, several: bool = False
) -> np.ndarray:
    """Class labels as int32, in which arithmetic does not wrap as in uint8.

    Args:
        labels: `[n]`, integers of any type. Floats and bools are refused: they are targets of a
            regression, or a mask, or a file that was read as the wrong type.
        examples: how many examples the labels belong to; None for no check.
        classes: how many classes there are, usually the number of the net's outputs. None allows
            any label from 0 on.
        several: whether an example may have several labels, `[n, ...]`.

    Returns:
        int32, in the shape of `labels`.

    Raises:
        InputError: if there are no labels, or their number, type or shape is wrong, or one is not
            in `[0, classes)`.
    """
    labels = np.asarray(labels)
    if labels.ndim < 1 or (labels.ndim > 1 and not several):
        raise InputError(f"labels have the shape {list(labels.shape)}. Give one per example, [n]")
    if examples is not None:
        check_count(labels, examples)
    if labels.size == 0:
        raise InputError("there are no labels. Give at least one example")
    kinds = sorted(
        {type(label).__name__ for label in labels.ravel()} if labels.dtype == "O" else ()
    )
    if kinds not in ([], ["int"]):
        raise InputError(
            f"labels are objects of the kinds {', '.join(kinds)}. Give all of them as integers, and"
            " leave out examples without a label"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {labels.dtype}, but must be integers. Convert them, for example by"
            " labels.astype(np.int32)"
        )
    _check_range(labels, classes)
    return labels.astype(np.int32)


def name_classes(
    labels: Any, examples: int
) -> tuple[Shaped[np.ndarray, " classes"], Int[np.ndarray, " n"]]:
    """The names of the classes, in the order of `np.unique`, and the place of each label in them.

    Args:
        labels: `[n]`, strings, or integers from 0, with or without gaps. Strings may be a list, a
            NumPy array of strings, or an object array.
        examples: how many examples the labels belong to.

    Raises:
        InputError: as `check_labels`, or if only some of the labels are strings.
    """
    # Of a list, NumPy would make the string "nan" of a label that is missing.
    is_list = isinstance(labels, list | tuple)
    words = [isinstance(label, str) for label in labels] if is_list else []
    given = np.asarray(labels, object if any(words) and not all(words) else None)
    if given.dtype.kind in "OT" and all(isinstance(label, str) for label in given.ravel()):
        given = np.array(given.tolist(), str)
    if given.dtype.kind != "U" or given.ndim != 1 or given.size == 0:
        given = check_labels(given if _is_mixed(given) else labels, examples)
    check_count(given, examples)
    names, places = np.unique(given, return_inverse=True)
    return names, places


def _is_mixed(given: np.ndarray) -> bool:
    return given.dtype.kind == "O" and any(isinstance(label, str) for label in given.ravel())


def check_count(labels: np.ndarray, examples: int) -> None:
    """Refuses another number of labels than of examples.

    Raises:
        InputError: as said above.
    """
    if len(labels) != examples:
        raise InputError(
            f"{examples} examples and {len(labels)} labels make no data set. Give one label per"
            " example"
        )


def _check_range(labels: np.ndarray, classes: int | None) -> None:
    """Refuses the first label that is not in `[0, classes)`."""
    most = MOST if classes is None else classes
    outside = (labels < 0) | (labels >= most)
    if not outside.any():
        return
    where = np.argwhere(outside)[0]
    label, example = labels[tuple(where)], where[0]
    if classes is not None:
        raise InputError(
            f"example {example} has the label {label}, but the {classes} classes have the labels 0"
            f" to {classes - 1}. Correct the labels, or give the net an output for each class"
        )
    cure = (
        "Leave out examples without a label"
        if label < 0
        else "Number the classes by np.unique(labels, return_inverse=True)[1]"
    )
    raise InputError(
        f"example {example} has the label {label}, but labels are 0 or more and below 2**31. {cure}"
    )
