"""Tasks that are groups of rows: a regression or a classification inside each group."""

from typing import Any

import jax
import numpy as np

from jaxdl.data.episodes import few_shot
from jaxdl.data.ranges import Range
from jaxdl.types import Batch, Episode, Key, PyTree, Sampler


def grouped(
    x: PyTree, y: PyTree, groups: Any, *, shots: Range, queries: Range, weights: Any = None
) -> Sampler:
    """Sampler of episodes that are a group each: support and query rows without replacement.

    Groups are drawn with equal probability, whatever their size. For a regression `y` holds
    numbers, and any loss will do. For a classification it holds the classes, whose meaning is the
    same in all groups.

    >>> import jax, jaxdl, numpy as np
    >>> x = np.arange(12.0)[:, None]
    >>> patients = np.repeat(["anna", "bert", "cora"], 4)
    >>> sample = jaxdl.grouped(x, 2 * x, patients, shots=3, queries=1)
    >>> support, query = jax.jit(sample)(jax.random.key(0))
    >>> support.x.shape, bool((support.y == 2 * support.x).all())
    ((3, 1), True)
    >>> len({*(support.x // 4).ravel().tolist(), *(query.x // 4).ravel().tolist()})  # one patient
    1

    Args:
        x, y: arrays `[N, ...]`, or dicts or tuples of them, with the types of `few_shot`. Bytes of
            x are pictures, and become floats in `[0, 1]`. Bytes of y are integers.
        groups: `[N]`, strings or integers from 0.
        shots, queries: support and query rows per task, or ranges of them. A group with fewer rows
            gives fewer of both, and a group with fewer than `min(shots) + 1` is left out, as a
            class in `few_shot`.
        weights: `[N]`, how much each row counts in a loss.

    Raises:
        InputError: as `few_shot`, whose messages speak of classes.
    """
    options: dict[str, Any] = {"ways": 1, "shots": shots, "queries": queries, "weights": weights}
    targets = jax.tree.map(_as_integers, y, is_leaf=lambda part: isinstance(part, list))
    rows = few_shot({"x": x, "y": targets}, groups, **options)
    return jax.tree_util.Partial(_draw, rows)


def _as_integers(leaf: Any) -> Any:
    leaf = np.asarray(leaf) if isinstance(leaf, list) else leaf
    return leaf.astype(np.int32) if getattr(leaf, "dtype", None) == np.uint8 else leaf


def _draw(rows: Sampler, key: Key) -> Episode:
    support, query = (Batch(part.x["x"], part.x["y"], part.weight) for part in rows(key))
    return Episode(support, query)
