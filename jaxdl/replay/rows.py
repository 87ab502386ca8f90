"""Rows of a memory: arrays `[capacity, ...]`, one item per row, overwritten in place.

An array of JAX is immutable: to write a row means a copy of the whole memory, unless XLA may reuse
the buffer. XLA may do so if nobody needs the old array. This holds if the state is donated to
`jit`, or is the carry of a `scan`, and if all reads of the old array come before the write. No
function here copies an array of the memory's size then. `tests/replay/test_in_place.py` tests it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array, PyTree


def empty(item: PyTree, capacity: int) -> PyTree:
    """Zeros `[capacity, ...]` for items like this one, of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        InputError: if `capacity` is below 1, or an item has no arrays.
    """
    if capacity < 1:
        raise InputError(f"capacity={capacity}: a memory holds at least 1 item. Choose 1 or more")
    if not jax.tree.leaves(item):
        raise InputError(
            "an item without arrays leaves nothing to remember: give `init` an item with an array"
        )

    def zeros(leaf: Array | jax.ShapeDtypeStruct) -> Array:
        like = jax.eval_shape(jnp.asarray, leaf)
        return jnp.zeros((capacity, *like.shape), like.dtype)

    return jax.tree.map(zeros, item)


def as_batch(rows: PyTree, items: PyTree) -> tuple[PyTree, int]:
    """One item, or a batch of items, as a batch `[count, ...]` for `rows`, and `count`.

    Raises:
        InputError: when tracing, if the items differ from the rows in structure, shape or dtype.
    """
    here: object = jax.tree.structure(items)
    if here != jax.tree.structure(rows):
        raise InputError(
            f"items are {_described(items)} here and {_described(rows)} in the memory;"
            " add items like the item that `init` got"
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
    """The rows `[capacity, ...]` with items `[count, ...]` at int32 indices `[count]`.

    The indices must differ from one another: see `last_of_each`. Items at indices past the end are
    dropped.
    """

    def put(
        row: Shaped[Array, " capacity *item"], item: Shaped[Array, " count *item"]
    ) -> Shaped[Array, " capacity *item"]:
        # One scatter, which XLA does in the row's own buffer. "drop" keeps it one scatter where an
        # item is not stored: a `where` over `row` would touch the whole memory.
        return row.at[indices].set(item, mode="drop", unique_indices=True)

    return jax.tree.map(put, rows, items)


def read(rows: PyTree, indices: Int[Array, "..."]) -> PyTree:
    """The items `[*indices.shape, ...]` at indices in `[0, capacity)`."""
    return jax.tree.map(lambda row: row.at[indices].get(mode="clip"), rows)


def length(rows: PyTree) -> int:
    """The capacity: the length of the leading axis of the rows."""
    return int(jax.tree.leaves(rows)[0].shape[0])


def last_of_each(indices: Int[Array, " count"], capacity: int) -> Int[Array, " count"]:
    """Indices `[count]`; an index that occurs again later becomes one past the end.

    An accelerator does the writes of one scatter in any order. With these indices the last of
    several writes to one index counts, as if they came one after another: `write` drops the
    others. The indices past the end differ from one another, because `write` needs unique ones.
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
    """Validates that the memory is not empty, if the size has a value: see `known`.

    Raises:
        InputError: if the size has a value and it is zero.
    """
    here = known(size)
    if here is not None and not here.all():
        raise InputError("the memory is empty: add items before you sample")


def known(value: ArrayLike) -> np.ndarray | None:
    """The value as a NumPy array. None if a transformation traces it, because it has no value yet.

    An array that a jitted function closes over has a value. Compute with it in NumPy: inside jit,
    `jax.numpy` traces constants, too, and its result would have no value.
    """
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _like(leaf: Array, shape: tuple[int, ...]) -> str:
    return f"{leaf.dtype}{list(shape)}"


def _described(tree: PyTree) -> str:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return f"a {type(tree).__name__} of {', '.join(paths) or 'nothing'}"
