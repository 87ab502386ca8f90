"""Where data lies on disk, and decoded arrays kept there: one file a data set, split and form.

The data folder is a TFDS data folder (`omniglot/3.0.0/...`) with one more folder in it, `arrays`,
for the cached arrays (`arrays/omniglot/3.0.0/area28.npz`). The arrays alone are enough to run.
"""

import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxdl.errors import InputError, RunError

Arrays = dict[str, np.ndarray]


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `data_dir`, else `$JAXDL_DATA`, else `jaxdl/data` in the cache folder.

    That is `$XDG_CACHE_HOME`, else `~/.cache`.

    Raises:
        InputError: if it is there and is not a folder.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxdl" / "data"
    folder = Path(data_dir or os.environ.get("JAXDL_DATA") or default).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the data folder {folder} is a file: let --data-dir name a folder")
    return folder


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
            # A plain zip: its checksums of every array are what finds a damaged file at loading.
            np.savez(file, **arrays)
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
        RunError: if it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, TypeError) as error:
        raise RunError(
            f"the cached arrays {path} are damaged ({error}): delete the file, then prepare the "
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
