"""Arrays by name in a `.npz` zip, in the format of `numpy.savez`; `numpy.load` can read it.

NumPy's own functions accept too much. `savez` takes arrays named `file` and `allow_pickle` as its
own arguments, pickles objects, and turns bfloat16 into bytes. `load` returns a text file as bytes,
and returns a shorter array if one bit of a shape has changed.
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from jaxdl.errors import InputError, in_short

CONTENTS = ".contents"
"""The array with the names of the other arrays. A zip has a checksum per array, but none for its
directory, in which one changed bit can hide arrays."""

_SMALL, _DENSE = 2**26, 100
"""More than 64 MiB are not unpacked from less than a hundredth of their bytes."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays, and the list of their names.

    Raises:
        InputError: for a name that a zip cannot hold, or a dtype that the format does not have.
    """
    for name, array in arrays.items():
        _check(name, np.asarray(array).dtype)
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in {**arrays, CONTENTS: np.array(sorted(arrays))}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` of any program; `CONTENTS` is one of them if `write` wrote the file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, or no `.npz`, or holds objects.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive.infolist(), path.stat().st_size)
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"two arrays are called {in_short(repr(name))}")
                with archive.open(member) as content:
                    found[name] = _array(content, member.file_size, in_short(repr(name)))
    except Exception as error:  # damaged bytes raise whatever zip, its decoders and NumPy raise
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = in_short(" ".join(str(error).split()))
        raise ValueError(why or type(error).__name__) from error
    names = found.get(CONTENTS)
    if names is not None and names.tolist() != sorted(found.keys() - {CONTENTS}):
        raise ValueError("arrays are missing")
    return found


def _check_sizes(members: Sequence[zipfile.ZipInfo], packed: int) -> None:
    """Refuses arrays that together would unpack from `packed` bytes to far more."""
    total = sum(member.file_size for member in members)
    if total > max(_SMALL, _DENSE * packed):
        raise ValueError(
            f"its arrays would unpack from {packed:,} to {total:,} bytes: save them without"
            " compression"
        )


def _array(content: IO[bytes], size: int, name: str) -> np.ndarray:
    """The array of a member that unpacks to `size` bytes. Memory is asked for what is there.

    `name` is how errors call it.
    """
    version = np.lib.format.read_magic(content)
    if version not in _HEADERS:
        raise ValueError(f"{name} is of version {version} of NumPy's format")
    shape, by_columns, dtype = _HEADERS[version](content)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    need = math.prod(shape) * dtype.itemsize
    nothing = dtype.itemsize == 0 and math.prod(shape) > size  # NumPy would give each text a byte
    if nothing or min(shape, default=0) < 0 or need != size - content.tell():
        raise ValueError(f"{name} has another number of bytes than its shape")
    data = np.empty(need, np.uint8)
    for start in range(0, need, 2**20):
        part = content.read(2**20)
        data[start : start + 2**20] = np.frombuffer(part, np.uint8)
    content.read(1)  # at its end, the zip looks at the checksum
    array = data.view(dtype) if dtype.itemsize else np.empty(shape, dtype)
    return array.reshape(shape, order="F" if by_columns else "C")


def _check(name: str, dtype: np.dtype) -> None:
    try:
        holds = 0 < len(f"{name}.npy".encode()) < 2**16 and "\0" not in name and name != CONTENTS
    except UnicodeEncodeError:
        holds = False
    if not holds:
        raise InputError(f"an array in a .npz file cannot be called {name!r}. Choose another name")
    try:
        known = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype
    except TypeError:
        known = False
    if dtype.hasobject or not known:
        raise InputError(f"{name!r} is of dtype {dtype}, which .npz files do not hold. Convert it")
