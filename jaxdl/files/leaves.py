"""The leaves of a pytree as a list: the path, the type and the values (on the host) of each.

Arrays are stored under their index in this list. The user's keys occur only in the record. So no
character in them (dots, slashes, quotes) can give two leaves the same name.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.types import PyTree

Path = tuple[tuple[str, str], ...]
"""The keys from the root to a leaf, each as its kind and its text.

`("str", "a")` and `("int", "0")` are keys of a dict, `("index", "0")` is a position in a list or
tuple, `("attribute", "w")` is a field. A list and a dict of the same texts have different paths.
"""

# A part of a path in format 1, in JAX's notation.
_PART = re.compile(r"\.(?P<attribute>\w+)|\['(?P<str>.*?)'\]|\[(?P<index>\d+)\]")


class Leaf(NamedTuple):
    """The record of one leaf. `dtype` is NumPy's name, or `key<threefry2x32>`.

    `shape` is the shape in JAX, in which a typed key is a scalar.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]


# ---- what the leaves are


def described(tree: PyTree) -> list[Leaf]:
    """The leaves of a tree, in the order of `jax.tree.leaves`.

    Raises:
        InputError: naming the first leaf that does not hold numbers, booleans or typed keys.
    """
    return [_described(*pair) for pair in jax.tree_util.tree_leaves_with_path(tree)]


def from_json(entries: Iterable[Sequence[Any]]) -> list[Leaf]:
    """The leaves from their JSON form."""
    return [
        Leaf(tuple((kind, text) for kind, text in path), dtype, tuple(shape))
        for path, dtype, shape in entries
    ]


def crc32_of_record(leaves: Sequence[Leaf]) -> int:
    """A checksum of the records of leaves."""
    return zlib.crc32(json.dumps(leaves).encode())


def path_of(keys: Iterable[Any]) -> Path:
    """The path of a leaf, from the key entries of JAX."""
    return tuple(map(_entry, keys))


def texts(path: Path) -> tuple[str, ...]:
    """The keys of a path without their kinds."""
    return tuple(text for _, text in path)


def name(path: Path) -> str:
    """The texts of a path, as `params/Dense_0/kernel`; two paths can have the same name."""
    return "/".join(texts(path))


def by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Pairs of name and value as a dict.

    Raises:
        InputError: if two pairs have the same name.
    """
    found: dict[str, Any] = {}
    for each, value in pairs:
        if each in found:
            raise InputError(f"two arrays of the net have the one name {each!r}: rename a layer")
        found[each] = value
    return found


def shown(path: Path) -> str:
    """A path in Python's notation, such as `.params['w'][0]`, for messages."""
    forms = {"attribute": ".{1}", "str": "[{1!r}]", "index": "[{1}]"}
    return "".join(forms.get(kind, "[{} {}]").format(kind, text) for kind, text in path)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed random keys, as made by `jax.random.key`."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_number(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype hold numbers or booleans, and not texts, dates or objects."""
    return dtype.kind not in "mM" and (dtype.kind == "b" or jnp.issubdtype(dtype, np.number))


def from_format_1(entries: Mapping[str, str]) -> list[Leaf]:
    """The leaves of a record of format 1, such as `{"['params']['w']": "float32[2, 3]"}`."""
    found = []
    for text, kind in entries.items():
        dtype, _, shape = kind.partition("[")
        found.append(Leaf(_path_in_format_1(text), dtype, tuple(json.loads(f"[{shape}"))))
    return found


def as_in_format_1(tree: PyTree, leaves: Iterable[Leaf]) -> list[Leaf]:
    """The leaves of a tree with paths of format 1, in which a list equals a dict of ints."""
    places = [keys for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [
        leaf._replace(path=_path_in_format_1(jax.tree_util.keystr(keys)))
        for keys, leaf in zip(places, leaves, strict=True)
    ]


def _path_in_format_1(text: str) -> Path:
    parts = list(_PART.finditer(text))
    if "".join(part[0] for part in parts) != text:
        return (("str", text),)  # a quote in a key, say: take the whole text as one key
    return tuple((str(part.lastgroup), part[str(part.lastgroup)]) for part in parts)


def _described(keys: Any, leaf: Any) -> Leaf:
    if is_key(leaf):
        return Leaf(path_of(keys), f"key<{jax.random.key_impl(leaf)}>", leaf.shape)
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    if not is_number(array.dtype):
        raise InputError(
            f"tree{jax.tree_util.keystr(keys)} is of dtype {array.dtype}, which cannot be saved."
            " Give arrays of numbers or booleans, or keys of jax.random.key"
        )
    return Leaf(path_of(keys), array.dtype.name, array.shape)


def _entry(key: Any) -> tuple[str, str]:
    match key:
        case jax.tree_util.SequenceKey(idx=position):
            return "index", str(position)
        case jax.tree_util.GetAttrKey(name=field):
            return "attribute", field
        case jax.tree_util.FlattenedIndexKey(key=position):
            return "child", str(position)
        case jax.tree_util.DictKey(key=str() as text):
            return "str", str(text)
        case jax.tree_util.DictKey(key=int() | np.integer() as number):
            return "int", str(number)
        case jax.tree_util.DictKey(key=other):
            return type(other).__name__, str(other)
    return type(key).__name__, str(key)


# ---- their values on the host


def on_host(tree: PyTree) -> list[np.ndarray]:
    """A copy of every leaf in native byte order; typed keys give their data, with one more axis."""
    numbers = [jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(tree)]
    copies = [np.array(array) for array in jax.device_get(numbers)]
    return [array.astype(array.dtype.newbyteorder("="), copy=False) for array in copies]


def as_tree(like: PyTree, arrays: Iterable[np.ndarray]) -> PyTree:
    """A tree with the structure of `like` and the values `arrays` of `on_host`.

    The leaves are JAX arrays. A leaf that JAX would cast (float64 without x64) is a NumPy array.
    """
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, map(_leaf_like, leaves, arrays))


def _leaf_like(like: PyTree, array: np.ndarray) -> PyTree:
    if is_key(like):
        data = array if array.size else np.zeros(jax.random.key_data(like).shape, np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(like))
    casts = jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype
    return array if casts else jnp.asarray(array)


def crc32(arrays: Iterable[np.ndarray]) -> int:
    """A checksum of the values, in their order."""
    value = 0
    for array in arrays:
        value = zlib.crc32(array.tobytes(), value)
    return value


def is_finite(array: Any) -> bool:
    """Whether an array of numbers or booleans holds neither NaN nor infinity."""
    return not jnp.issubdtype(array.dtype, np.inexact) or bool(np.isfinite(array).all())


# ---- their values by index, for a store


def numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by their index, in dtypes and sizes that any store accepts.

    Extension dtypes, such as bfloat16, become unsigned integers of the same bits. An empty array
    becomes a zero, and so does an empty list.
    """
    return {str(i): _plain(array) for i, array in enumerate(arrays or [np.zeros(0)])}


def from_numbered(stored: Mapping[str, np.ndarray], leaves: Sequence[Leaf]) -> list[np.ndarray]:
    """The arrays that `numbered` stored.

    Raises:
        ValueError: if an array has another dtype or shape than its leaf.
        KeyError: if an array is missing.
    """
    return [_from_plain(np.asarray(stored[str(i)]), leaf) for i, leaf in enumerate(leaves)]


def _plain(array: np.ndarray) -> np.ndarray:
    if not array.size:
        return np.zeros(1, np.uint8)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.isbuiltin == 2 else array


def _from_plain(array: np.ndarray, leaf: Leaf) -> np.ndarray:
    of_keys = leaf.dtype.startswith("key<")
    dtype = np.dtype(np.uint32) if of_keys else jnp.dtype(leaf.dtype)
    empty = np.zeros(leaf.shape, dtype)
    if not empty.size:
        return empty
    shape = array.shape[:-1] if of_keys else array.shape
    if shape != leaf.shape or array.dtype not in (dtype, _plain(np.ones(1, dtype)).dtype):
        raise ValueError(f"{shown(leaf.path)} is {array.dtype}{list(array.shape)} in it")
    return array.view(dtype)
