"""Class labels from the host, checked once, where they come in.

A compiled program cannot refuse a label: -1 trains the last class there, and a label that the net
has no output for makes the loss NaN.
"""

from typing import Any

import numpy as np

from jaxdl.errors import InputError

MOST = 2**31
"""Labels are int32 on the device."""


def check_labels(
    labels: Any, examples: int | None = None, *, classes: int | None = None, several: bool = False
) -> np.ndarray:
    """Class labels as int32, so that no arithmetic on them can wrap as it does in uint8.

    Args:
        labels: `[n]`, integers of any type. Floats and bools are no labels: whoever has them has
            targets of a regression, or a mask, or a file that was read as the wrong type.
        examples: how many examples the labels belong to; None where there are only labels.
        classes: how many classes there are, usually the number of the net's outputs; None where
            nobody knows, and any label from 0 on will do.
        several: whether an example may have several labels, `[n, ...]`.

    Returns:
        int32, the shape of `labels`.

    Raises:
        InputError: if there are none, or another number or type of them, or one is not in
            `[0, classes)`.
    """
    labels = np.asarray(labels)
    if labels.ndim < 1 or (labels.ndim > 1 and not several):
        raise InputError(f"labels have the shape {list(labels.shape)}: give one per example, [n]")
    if examples is not None and len(labels) != examples:
        raise InputError(
            f"{examples} examples and {len(labels)} labels make no data set: give one label per"
            " example"
        )
    if labels.size == 0:
        raise InputError("there are no labels: a data set needs at least one example")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {labels.dtype}, but must be integers: convert them, for example by"
            " labels.astype(np.int32)"
        )
    _check_range(labels, classes)
    return labels.astype(np.int32)


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
            f" to {classes - 1}: correct the labels, or give the net an output for each class"
        )
    cure = (
        "leave out examples without a label"
        if label < 0
        else "number the classes by np.unique(labels, return_inverse=True)[1]"
    )
    raise InputError(
        f"example {example} has the label {label}, but labels are 0 or more and below 2**31: {cure}"
    )
