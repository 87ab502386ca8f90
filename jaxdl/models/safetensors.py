"""The `.safetensors` format: a length, a JSON header and raw bytes. It needs no package.

The format's description (https://github.com/huggingface/safetensors, "Format") lists the allowed
entries of a header. Any other header is refused. Bytes that two tensors share, or that belong to no
tensor, are refused too: they are an error, or hide something.
"""

import json
import math
import mmap
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

_MOST = 100_000_000
"""The longest header, in bytes, that the reference implementation reads."""

# The dtypes of whole bytes that NumPy and JAX have. The file is little-endian.
_DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}

# Tests for a wrong entry, given the number of bytes of tensors, each with its message.
# A test may assume that the tests above it found no error.
_WRONG: tuple[tuple[Callable[[Any, int], bool], str], ...] = (
    (
        lambda entry, size: not isinstance(entry, dict),
        "is no object",
    ),
    (
        lambda entry, size: not entry.keys() >= {"dtype", "shape", "data_offsets"},
        "lacks dtype, shape or data_offsets",
    ),
    (
        lambda entry, size: not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES,
        f"is of none of the dtypes {' '.join(_DTYPES)}",
    ),
    (
        lambda entry, size: not _are_counts(entry["shape"]),
        "has a shape that is no list of whole numbers, 0 or more",
    ),
    (
        lambda entry, size: (
            not _are_counts(entry["data_offsets"]) or len(entry["data_offsets"]) != 2
        ),
        "has data_offsets that are not two whole numbers, 0 or more",
    ),
    (
        lambda entry, size: entry["data_offsets"][0] > entry["data_offsets"][1],
        "ends before it begins",
    ),
    (
        lambda entry, size: entry["data_offsets"][1] > size,
        "ends after the file, which may be cut off",
    ),
    (
        lambda entry, size: (
            entry["data_offsets"][1] - entry["data_offsets"][0]
            != math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
        ),
        "has another number of bytes than its shape and dtype need",
    ),
)


def read(data: bytes | mmap.mmap) -> dict[str, np.ndarray]:
    """The tensors by name, in the order of the header.

    Raises:
        ValueError: if the bytes are not of this format, or end too early or too late.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= len(data):
        raise ValueError("its header is cut off")
    if start > _MOST:
        raise ValueError(f"its header is longer than {_MOST:,} bytes")
    header = _header(data[8:start])
    _check(header, len(data) - start)
    tensors = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[first:last], _DTYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors


def _header(text: bytes) -> dict[str, Any]:
    """The entries of a header, without its `__metadata__`."""
    if text[:1] != b"{":
        raise ValueError("its header does not begin with {")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("__metadata__ is no object of texts")
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {}
    for name, value in pairs:
        name.encode()  # half a surrogate pair is no text
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check(header: dict[str, Any], size: int) -> None:
    """Refuses wrong entries, and any of the `size` bytes that does not belong to one tensor."""
    for name, entry in header.items():
        for is_wrong, words in _WRONG:
            if is_wrong(entry, size):
                raise ValueError(f"{name!r} {words}")
    end = 0
    for (first, last), name in sorted((e["data_offsets"], name) for name, e in header.items()):
        if first < end:
            raise ValueError(f"{name!r} shares bytes with another tensor")
        if first > end:
            raise ValueError(f"the {first - end} bytes before {name!r} belong to no tensor")
        end = last
    if end < size:
        raise ValueError(f"the last {size - end} bytes belong to no tensor")


def _are_counts(values: Any) -> bool:
    """Whether `values` is a list of whole numbers of at least 0; `true` is not a number."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
