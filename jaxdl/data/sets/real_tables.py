"""Four small tables from scikit-learn, and random splits of them. No download."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdl.errors import InputError, extra

TABLES = ("iris", "wine", "breast_cancer", "digits")
"""Of 4, 13, 30 and 64 columns, and 3, 3, 2 and 10 classes."""


class Split(NamedTuple):
    """Rows to learn from, and rows to classify."""

    x: Float[np.ndarray, "rows columns"]
    y: Int[np.ndarray, " rows"]
    test_x: Float[np.ndarray, "tests columns"]
    test_y: Int[np.ndarray, " tests"]


def real_table(name: str) -> tuple[Float[np.ndarray, "n columns"], Int[np.ndarray, " n"]]:
    """All rows of one of `TABLES`, float32, and their classes.

    >>> x, y = real_table("wine")
    >>> x.shape, x.dtype, sorted(set(y.tolist()))
    ((178, 13), dtype('float32'), [0, 1, 2])

    Raises:
        InputError: for another name, or without scikit-learn.
    """
    if name not in TABLES:
        raise InputError(f"there is no table {name!r}. Choose {', '.join(TABLES)}")
    with extra("data"):
        from sklearn import datasets
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(x, np.float32), np.asarray(y)


def random_split(
    x: Float[np.ndarray, "n columns"],
    y: Int[np.ndarray, " n"],
    seed: int,
    *,
    rows: int = 100,
    tests: int = 50,
    columns: int = 20,
) -> Split:
    """So many random rows to learn from and to classify, and at most so many random columns.

    Both parts have the classes in the shares of the whole table, so each class is in both.

    >>> split = random_split(*real_table("digits"), seed=0)
    >>> split.x.shape, split.test_x.shape, len(set(split.test_y.tolist()))
    ((100, 20), (50, 20), 10)

    Raises:
        InputError: without scikit-learn, or if there are too few rows, or fewer than classes in a
            part.
    """
    with extra("data"):
        from sklearn.model_selection import train_test_split
    kept = np.arange(x.shape[1])
    if len(kept) > columns:
        kept = np.sort(np.random.default_rng(seed).choice(kept, columns, replace=False))
    try:
        parts = train_test_split(
            x[:, kept], y, train_size=rows, test_size=tests, stratify=y, random_state=seed
        )
    except ValueError as error:
        raise InputError(
            f"{len(x)} rows of {len(set(y.tolist()))} classes cannot be divided into {rows} and"
            f" {tests}. Both need a row per class, and together they are at most all rows"
        ) from error
    return Split(parts[0], parts[2], parts[1], parts[3])
