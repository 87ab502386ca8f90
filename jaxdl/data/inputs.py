"""Inputs of any type and structure: images, tokens, tables, or a dict of them.

Each array by itself follows one rule. Bytes become float32 in `[0, 1]`, as images do. Floats become
float32 as they are. Other integers, such as tokens, become int32 and keep their values. Bools, such
as masks, stay bools.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr
from jaxtyping import Shaped

from jaxdl.data.pixels import check_images, white
from jaxdl.errors import InputError
from jaxdl.types import Array, PyTree


def check_inputs(x: PyTree) -> PyTree:
    """Checks inputs from the host. Each leaf becomes a NumPy array `[n, ...]` of the stored type.

    uint8 and bools stay as they are, other integers become int32, and floats become float32. A
    list is one array, but a dict or a tuple is a structure of leaves.

    Raises:
        InputError: if there are no inputs, leaves differ in length, or a leaf has another type, is
            not finite, or does not fit into int32.
    """
    leaves, structure = jax.tree.flatten_with_path(x, is_leaf=lambda part: isinstance(part, list))
    if not leaves:
        raise InputError("there are no images in an empty structure. Give at least one array")
    checked = {keystr(path): _check_leaf(keystr(path), leaf) for path, leaf in leaves}
    first, *_ = checked
    for path, leaf in checked.items():
        if len(leaf) != len(checked[first]):
            raise InputError(
                f"x{path} has {len(leaf)} rows, but x{first} has {len(checked[first])}. Give each"
                " array one row per example"
            )
    return jax.tree.unflatten(structure, list(checked.values()))


def check_scale(x: PyTree, scale: float | None) -> None:
    """Refuses a scale that no leaf of checked inputs would take.

    Raises:
        InputError: as said above.
    """
    if scale is not None and not any(_is_scaled(leaf) for leaf in jax.tree.leaves(x)):
        kinds = ", ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(x)}))
        raise InputError(
            f"scale={scale} is for uint8 and floats, but x is {kinds}. Leave it out, or convert"
            " images by x.astype(np.float32)"
        )


def as_inputs(x: PyTree, scale: float | None) -> PyTree:
    """What a net gets of stored examples: bytes and floats as float32, times `scale`.

    Without a scale, bytes are divided by 255. Other types stay as they are.
    """

    def convert(leaf: Array) -> Shaped[Array, "..."]:
        if not _is_scaled(leaf):
            return leaf
        return leaf.astype(jnp.float32) * (1 / white(leaf) if scale is None else scale)

    return jax.tree.map(convert, x)


def _is_scaled(leaf: Any) -> bool:
    return leaf.dtype == np.uint8 or bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _check_leaf(path: str, leaf: Any) -> np.ndarray:
    """`path` is empty if x is a single array."""
    try:
        leaf = np.asarray(leaf)
    except ValueError as error:
        raise InputError(
            f"x{path} has rows of unequal length. Pad them to one length, and give the lengths as"
            " another array of a dict"
        ) from error
    if leaf.ndim and leaf.size and leaf.dtype != np.uint8:
        if leaf.dtype == np.bool_:
            return leaf
        if np.issubdtype(leaf.dtype, np.integer):
            return _as_int32(path, leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"x{path} is {leaf.dtype}, but must be numbers or bools. Give text as integer"
                " tokens, and complex numbers as pairs of floats"
            )
    try:
        return check_images(leaf)
    except InputError as error:
        raise InputError(f"x{path}: {error}" if path else str(error)) from None


def check_fits(leaf: np.ndarray, what: str = "x") -> None:
    """Refuses integers of 64 bits that JAX would cut to 32 without a word.

    Args:
        what: what the message calls the array.

    Raises:
        InputError: if one does not fit.
    """
    kept = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if not np.issubdtype(leaf.dtype, np.integer) or kept == leaf.dtype or not leaf.size:
        return
    limits = np.iinfo(kept)
    if leaf.min() < limits.min or leaf.max() > limits.max:
        raise InputError(
            f"{what} has integers from {leaf.min()} to {leaf.max()}, which do not fit into {kept}."
            " Number tokens from 0, or convert measurements by x.astype(np.float32)"
        )


def _as_int32(path: str, leaf: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int32)
    if leaf.min() < limits.min or leaf.max() > limits.max:
        raise InputError(
            f"x{path} has integers from {leaf.min()} to {leaf.max()}, which do not fit into int32."
            " Number the tokens from 0, or convert measurements by x.astype(np.float32)"
        )
    return leaf.astype(np.int32)
