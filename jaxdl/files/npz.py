"""Arrays by name in a `.npz` zip, in the format of `numpy.savez`; `numpy.load` can read it.

NumPy's own functions accept too much. `savez` takes arrays named `file` and `allow_pickle` as its
own arguments, pickles objects, and turns bfloat16 into bytes. `load` returns a text file as bytes,
and returns a shorter array if one bit of a shape has changed.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from jaxdl.errors import InputError

CONTENTS = ".contents"
"""The array with the names of the other arrays. A zip has a checksum per array, but none for its
directory, in which one changed bit can hide arrays."""

# Errors of zip, zlib and NumPy for damaged bytes. RuntimeError is a zip of another kind.
_DAMAGE = (
    *(ValueError, TypeError, KeyError, EOFError, SyntaxError, RuntimeError, MemoryError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


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
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"two arrays are called {name!r}")
                with archive.open(member) as content:
                    found[name] = np.lib.format.read_array(content, allow_pickle=False)
                    if content.read(1):  # zipfile checks the checksum at the end of the content
                        raise ValueError(f"{name!r} has more bytes than its shape")
    except _DAMAGE as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    names = found.get(CONTENTS)
    if names is not None and names.tolist() != sorted(found.keys() - {CONTENTS}):
        raise ValueError("arrays are missing")
    return found


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
