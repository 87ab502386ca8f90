"""Scores of learning and forgetting (Riemer et al. 2019, https://arxiv.org/abs/1810.11910).

`accuracy` `[..., tasks, tasks]` is the matrix R of GEM: the accuracy on test examples of task j
(column) after task i was learned (row). A matrix that is not square raises InputError. Everything
here runs on the host, in float64.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.errors import InputError

Scores = np.ndarray | np.float64
"""Numbers `[...]`, or one number for a single matrix."""


def retained(accuracy: ArrayLike) -> Scores:
    """RA, retained accuracy: the mean over tasks after the last task, `[...]`."""
    return _square(accuracy)[..., -1, :].mean(axis=-1)


def learning(accuracy: ArrayLike) -> Scores:
    """LA, learning accuracy: the mean over tasks right after each was learned, `[...]`."""
    return _square(accuracy).diagonal(axis1=-2, axis2=-1).mean(axis=-1)


def transfer(accuracy: ArrayLike) -> Scores:
    """BTI, backward transfer and interference: RA - LA, `[...]`; below 0 if tasks are forgotten.

    (GEM's backward transfer divides the same sum by the number of tasks minus 1.)
    """
    return retained(accuracy) - learning(accuracy)


def _square(accuracy: ArrayLike) -> np.ndarray:
    matrix = np.asarray(accuracy, np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise InputError(
            f"accuracy {list(matrix.shape)} is not square. Give [..., tasks, tasks], one row after"
            " each task and one column per task; leave out columns of tasks that were not learned"
        )
    return matrix
