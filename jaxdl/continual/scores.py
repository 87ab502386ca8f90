"""How well a learner learns and keeps tasks (Riemer et al. 2019, https://arxiv.org/abs/1810.11910).

`accuracy` `[..., tasks, tasks]` is the matrix R of GEM: row i, after task i was learned; column j,
on test examples of task j. It is square, and InputError says where it is not. Everything here runs
on the host, in float64.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.errors import InputError

Scores = np.ndarray | np.float64
"""Numbers `[...]`, or one number of one matrix."""


def retained(accuracy: ArrayLike) -> Scores:
    """RA: the mean over tasks after the last one `[...]`."""
    return _square(accuracy)[..., -1, :].mean(axis=-1)


def learning(accuracy: ArrayLike) -> Scores:
    """LA: the mean over tasks of the accuracy right after each was learned `[...]`."""
    return _square(accuracy).diagonal(axis1=-2, axis2=-1).mean(axis=-1)


def transfer(accuracy: ArrayLike) -> Scores:
    """BTI, backward transfer and interference: RA - LA `[...]`; below 0 where tasks are forgotten.

    (GEM's backward transfer is the same sum divided by the number of tasks but the last.)
    """
    return retained(accuracy) - learning(accuracy)


def _square(accuracy: ArrayLike) -> np.ndarray:
    matrix = np.asarray(accuracy, np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise InputError(
            f"accuracy {list(matrix.shape)}: give [..., tasks, tasks], a row after each task and a"
            " column for each; of tasks that were not learned leave the columns out"
        )
    return matrix
