"""Decoded arrays kept on disk, so that data are decoded once."""

import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import InputError, RunError

Arrays = dict[str, np.ndarray]
DAMAGE = (ValueError, EOFError, KeyError, TypeError, SyntaxError, UnicodeError, struct.error)
"""What NumPy raises for a damaged header of an array."""
CONTENTS = ".contents"
"""The names of the other arrays. The zip has a checksum for each array, but none for its directory,
where one changed bit can hide arrays."""


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Writes all or nothing: a reader sees the old file, or the whole new one, whenever we die.

    Raises:
        OSError: if the folder cannot be written to or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
    ) as file:
        try:
            members: dict[str, Any] = {**arrays, CONTENTS: np.array(sorted(arrays))}
            np.savez(file, **members)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def umask() -> int:
    """The permissions that new files lack; temporary files are private, shared data must not be."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_arrays(path: Path) -> Arrays:
    """The arrays in `path`, checked against the checksums they were written with.

    Raises:
        FileNotFoundError: if there is no such file.
        RunError: if it is damaged, or may not be read.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            if list(arrays.pop(CONTENTS)) != sorted(arrays):
                raise ValueError("arrays are missing")
            return arrays
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, *DAMAGE) as error:
        raise RunError(
            f"the cached arrays {path} cannot be read ({error}): delete the file, then prepare the "
            "data again or copy the file anew"
        ) from error


def cached(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """The arrays in `path`; if they are not there yet, what `make()` gives, which is then kept.

    A damaged file is made anew where `make` can. A folder that cannot be written to costs one line
    on stderr and the next start's time, not the run.

    Raises:
        RunError: if the file is damaged and `make` raises `InputError` (nothing to make it from).
    """
    damaged = None
    try:
        return load_arrays(path)
    except FileNotFoundError:
        pass
    except RunError as error:
        damaged = error
    try:
        arrays = make()
    except InputError as error:
        raise damaged or error from error
    if damaged:
        print(f"{damaged}; now made anew from the prepared data", file=sys.stderr)
    try:
        save_arrays(path, arrays)
    except OSError as error:
        print(f"cannot keep the decoded arrays in {path} ({error})", file=sys.stderr)
    return arrays
