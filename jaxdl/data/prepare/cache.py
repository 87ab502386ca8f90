"""Decoded arrays kept on disk, so that data are decoded once."""

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
"""The fingerprint of what the other arrays were decoded from."""
DECODING = 2
"""Part of each fingerprint. Raise it when the same files decode to other arrays than before."""
SMALL = 2**20
"""Files of so many bytes are read for a fingerprint; of larger ones, size and time must do."""


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Writes all or nothing: a reader sees the old file, or the whole new one, whenever we die.

    Raises:
        InputError: for a name or dtype that a `.npz` file does not hold.
        OSError: if the folder cannot be written to or the disk is full; nothing is left behind.
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
    arrays = _read(path)
    arrays.pop(SOURCE, None)
    return arrays


def _read(path: Path) -> Arrays:
    """The arrays with `SOURCE`, where it is known."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        arrays = npz.read(path)
        if arrays.pop(npz.CONTENTS, None) is None:
            raise ValueError("arrays are missing")
        return arrays
    except (OSError, ValueError) as error:
        raise RunError(
            f"the cached arrays {path} cannot be read ({error}): delete the file, then prepare the "
            "data again or copy the file anew"
        ) from error


def fingerprint(folder: Path) -> str:
    """Tells one build of a data set from another without reading its large files.

    It depends on the names of all files in `folder` and below, on the content of those up to
    `SMALL` (what TFDS writes to describe a set, and small shards), and on size and time of change,
    in whole seconds, of the larger ones. So it sees a set that was prepared anew, edited, or lost a
    file. It does not see a large file whose content alone changed, and neither its size nor its
    time. A copy counts as another build where copying sets new times: `cp -r` does, while `cp -a`,
    `rsync -a`, tar and moving keep them, some to the second only.

    Raises:
        RunError: if a file may not be read.
    """
    digest = hashlib.sha256(f"{DECODING}\n".encode())
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            # Hidden files come from file systems and desktops.
            if path.is_dir() or any(part.startswith(".") for part in name.split("/")):
                continue
            about = path.stat()
            last: Any = about.st_mtime_ns // 10**9
            if about.st_size <= SMALL:
                last = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{about.st_size}\0{last}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(
            f"{folder} cannot be read ({error}): let somebody who may give you the right to, or"
            " let `data_dir=` or JAXDL_DATA name another folder"
        ) from error
    return digest.hexdigest()


def cached(path: Path, make: Callable[[], Arrays], source: Path | None = None) -> Arrays:
    """The arrays in `path`; if they are not there yet, what `make()` gives, which is then kept.

    They are made anew, with one line on stderr that says so, if the file is damaged, or if it was
    made from another build of `source`, or does not say from which. A folder that cannot be written
    to costs one line and the next start's time, not the run.

    Args:
        path: a `.npz` file.
        make: decodes the data set.
        source: the folder that `make` reads. Where it is not there the arrays alone are enough, and
            trusted.

    Raises:
        RunError: if the file is damaged and `make` raises `InputError` (nothing to make it from).
        InputError: what `make` raises otherwise.
    """
    now = fingerprint(source) if source and source.is_dir() else None
    damaged = None
    try:
        found = _read(path)
        made_from = str(found.pop(SOURCE, ""))
        if source and not made_from:
            use = "used as they are" if now is None else "decoded anew"
            doubt = f"{path} does not say which build of {source} it was decoded from"
            print(f"{doubt}: the arrays are {use}", file=sys.stderr)
        elif now and made_from != now:
            doubt = f"{source} has changed since {path} was decoded from it"
            print(f"{doubt}: the arrays are decoded anew", file=sys.stderr)
        if now in (None, made_from):
            return found
        del found  # before another set of the same size takes memory
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
        save_arrays(path, arrays if now is None else {**arrays, SOURCE: np.array(now)})
    except OSError as error:
        print(f"cannot keep the decoded arrays in {path} ({error})", file=sys.stderr)
    return arrays
