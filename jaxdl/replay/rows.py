"""Rows of a memory: items side by side in arrays of fixed length, overwritten in place.

Nothing here copies an array of the memory's size when its buffers may be reused: under `jit` with
the state donated, or as the carry of a `scan`. `tests/replay/test_in_place.py` holds that fast.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array, PyTree


def empty(item: PyTree, capacity: int) -> PyTree:
    """Zeros `[capacity, ...]` for items like this one, of arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        InputError: if there is no room for one item, or an item holds nothing.
    """
    if capacity < 1:
        raise InputError(f"capacity={capacity}: a memory holds at least 1 item")
    if not jax.tree.leaves(item):
        raise InputError("an item without arrays leaves nothing to remember")

    def zeros(leaf: Array | jax.ShapeDtypeStruct) -> Array:
        like = jax.eval_shape(jnp.asarray, leaf)
        return jnp.zeros((capacity, *like.shape), like.dtype)

    return jax.tree.map(zeros, item)


def as_batch(rows: PyTree, items: PyTree) -> tuple[PyTree, int]:
    """One item, or a batch of them, as a batch `[count, ...]` that fits into `rows`, and its count.

    Raises:
        InputError: when tracing, if the items differ from the rows in structure, shape or type.
    """
    here: object = jax.tree.structure(items)
    if here != jax.tree.structure(rows):
        raise InputError(
            f"items are {_described(items)} here and {_described(rows)} in the memory;"
            " add such items as `init` was given"
        )
    items = jax.tree.map(jnp.asarray, items)
    single = jax.tree.leaves(items)[0].ndim < jax.tree.leaves(rows)[0].ndim
    if single:
        items = jax.tree.map(lambda leaf: leaf[None], items)
    counts = {leaf.shape[:1] for leaf in jax.tree.leaves(items)}
    pairs = zip(jax.tree_util.tree_leaves_with_path(items), jax.tree.leaves(rows), strict=True)
    for (path, leaf), row in pairs:
        if leaf.shape[1:] != row.shape[1:] or leaf.dtype != row.dtype or len(counts) > 1:
            found, wanted = _like(leaf, leaf.shape[1 if single else 0 :]), _like(row, row.shape[1:])
            raise InputError(
                f"item{jax.tree_util.keystr(path)} is {found} here and {wanted} in the memory;"
                " add one such item, or a batch of them with one leading axis"
            )
    return items, jax.tree.leaves(items)[0].shape[0]


def write(rows: PyTree, indices: Int[Array, " count"], items: PyTree) -> PyTree:
    """The rows with items `[count, ...]` at int32 indices `[count]`, which differ from one another.

    Indices past the end take nothing.
    """

    def put(
        row: Shaped[Array, " capacity *item"], item: Shaped[Array, " count *item"]
    ) -> Shaped[Array, " capacity *item"]:
        return row.at[indices].set(item, mode="drop", unique_indices=True)

    return jax.tree.map(put, rows, items)


def read(rows: PyTree, indices: Int[Array, "..."]) -> PyTree:
    """The items at indices in `[0, capacity)`; their shape leads that of each leaf."""
    return jax.tree.map(lambda row: row.at[indices].get(mode="clip"), rows)


def length(rows: PyTree) -> int:
    """The capacity of the memory that these rows are."""
    return int(jax.tree.leaves(rows)[0].shape[0])


def last_of_each(indices: Int[Array, " count"], capacity: int) -> Int[Array, " count"]:
    """Indices `[count]` with those that come again later moved past the end, each to its own.

    So that the last of several writes to one index counts, as it would one after another; an
    accelerator writes them in any order. `write` drops what lies past the end.
    """
    if indices.shape[0] < 2:
        return indices
    order = jnp.argsort(indices, stable=True)
    ordered = indices[order]
    again = jnp.concatenate([ordered[:-1] == ordered[1:], jnp.zeros(1, bool)])
    beyond = capacity + jnp.arange(indices.shape[0], dtype=indices.dtype)
    apart = jnp.where(again | (ordered >= capacity), beyond, ordered)
    return indices.at[order].set(apart, unique_indices=True)


def refuse_empty(size: Int[Array, "..."]) -> None:
    """Refuses to sample from nothing where that can be seen: see `known`.

    Raises:
        InputError: if the size is known and zero.
    """
    here = known(size)
    if here is not None and not here.all():
        raise InputError("the memory is empty: add items before you sample")


def known(value: ArrayLike) -> np.ndarray | None:
    """The value on the host; None of what a transformation traces, which has no value yet.

    What a jitted function closes over has one. It must be looked at with NumPy: inside jit
    `jax.numpy` traces whatever it is given, constants too, and the answer would have no value.
    """
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _like(leaf: Array, shape: tuple[int, ...]) -> str:
    return f"{leaf.dtype}{list(shape)}"


def _described(tree: PyTree) -> str:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return f"a {type(tree).__name__} of {', '.join(paths) or 'nothing'}"
