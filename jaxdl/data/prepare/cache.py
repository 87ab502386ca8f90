"""A cache of decoded arrays on disk, so that data are decoded only once."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import InputError, RunError
from jaxdl.files import npz

Arrays = dict[str, np.ndarray]
SOURCE = ".source"
"""The array with the fingerprint of the data set that the other arrays were decoded from."""
DECODING = 2
"""Part of each fingerprint. Increase it if the same files decode to other arrays than before."""
SMALL = 2**20
"""The largest file in bytes whose content counts in a fingerprint; else its size and time count."""


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Writes all or nothing: even after a kill, a reader sees the old file or the whole new one.

    Raises:
        InputError: for a name or dtype that a `.npz` file cannot hold.
        OSError: if the folder is not writable or the disk is full; no temporary file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
    ) as file:
        try:
            npz.write(file, arrays)
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
    """The permissions that new files lack; temporary files are private, but data may be shared."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_arrays(path: Path) -> Arrays:
    """The arrays in `path`, checked against their stored checksums.

    Raises:
        FileNotFoundError: if there is no such file.
        RunError: if the file is damaged, or not readable.
    """
    arrays = _read(path)
    arrays.pop(SOURCE, None)
    return arrays


def _read(path: Path) -> Arrays:
    """The arrays, with `SOURCE` if the file has it."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        arrays = npz.read(path)
        if arrays.pop(npz.CONTENTS, None) is None:
            raise ValueError("arrays are missing")
        return arrays
    except (OSError, ValueError) as error:
        raise RunError(
            f"the cached arrays {path} cannot be read ({error}). To repair them, delete the file, "
            "then prepare the data again or copy the file again"
        ) from error


def fingerprint(folder: Path) -> str:
    """A hash that tells two builds of a data set apart without reading its large files.

    It depends on the names of all files in `folder` and below. It depends on the content of files
    up to `SMALL` bytes (descriptions that TFDS writes, and small shards). For larger files it
    depends on the size and the time of change, in whole seconds.

    So it changes if the set is prepared again or edited, or loses a file. It does not change if a
    large file gets other content with the same size and time. A copy with new times counts as
    another build: `cp -r` sets new times. `cp -a`, `rsync -a`, tar and moving keep the times, some
    to the second only.

    Raises:
        RunError: if a file is not readable.
    """
    digest = hashlib.sha256(f"{DECODING}\n".encode())
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            # Hidden files are not data: file systems and desktops make them.
            if path.is_dir() or any(part.startswith(".") for part in name.split("/")):
                continue
            about = path.stat()
            last: Any = about.st_mtime_ns // 10**9
            if about.st_size <= SMALL:
                last = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{about.st_size}\0{last}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(
            f"{folder} cannot be read ({error}). Get the permission to read it, or let `data_dir=`"
            " or JAXDL_DATA name another folder"
        ) from error
    return digest.hexdigest()


def cached(path: Path, make: Callable[[], Arrays], source: Path | None = None) -> Arrays:
    """The arrays in `path`; if the file does not exist, the result of `make()`, which is stored.

    The arrays are made again, with a line on stderr, if the file is damaged, or was made from
    another build of `source`, or does not record its build. If the folder is not writable, a line
    on stderr says so, the run goes on, and the next start decodes again.

    Args:
        path: a `.npz` file.
        make: decodes the data set.
        source: the folder that `make` reads. If it does not exist, the stored arrays are trusted.

    Raises:
        RunError: if the file is damaged and `make` raises `InputError` (there is no data set).
        InputError: as `make`, otherwise.
    """
    now = fingerprint(source) if source and source.is_dir() else None
    damaged = None
    try:
        found = _read(path)
        made_from = str(found.pop(SOURCE, ""))
        if source and not made_from:
            use = "used as they are" if now is None else "decoded again"
            doubt = f"{path} does not say which build of {source} it was decoded from"
            print(f"{doubt}: the arrays are {use}", file=sys.stderr)
        elif now and made_from != now:
            doubt = f"{source} has changed since {path} was decoded from it"
            print(f"{doubt}: the arrays are decoded again", file=sys.stderr)
        if now in (None, made_from):
            return found
        del found  # frees memory for another set of the same size
    except FileNotFoundError:
        pass
    except RunError as error:
        damaged = error
    try:
        arrays = make()
    except InputError as error:
        raise damaged or error from error
    if damaged:
        print(f"{damaged}. Now they are decoded again from the prepared data", file=sys.stderr)
    try:
        save_arrays(path, arrays if now is None else {**arrays, SOURCE: np.array(now)})
    except OSError as error:
        print(f"cannot store the decoded arrays in {path} ({error})", file=sys.stderr)
    return arrays
