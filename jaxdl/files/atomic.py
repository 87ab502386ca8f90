"""Atomic writes of small files, and conversion of values for JSON and YAML."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.errors import RunError


def parsed(text: str) -> Any:
    """The value of a JSON text.

    >>> parsed('{"steps": 3}'), parsed("[" * 100_000 + "]" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: it is nested too deeply

    Raises:
        ValueError: if it is none, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: if the file is damaged.
    """
    try:
        found = parsed(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}). Move it away to go on") from error
    return found


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        RunError: if it cannot be written. An older file with this name then stays.
    """
    # A name of its own, because another process may write the same file.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with writing(path):
        try:
            with part.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def plain(value: Any) -> Any:
    """Converts arrays, paths and dataclasses to values for JSON and YAML."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN
    return value


CURES = {
    errno.ENOSPC: "Free disk space",
    errno.EDQUOT: "Free disk space",
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`)",
    errno.EACCES: "Correct the permissions",
    errno.EPERM: "Correct the permissions",
    errno.EROFS: "Choose another `runs_dir=`",
    errno.ENAMETOOLONG: "Choose a shorter `name=`",
    errno.ELOOP: "Remove this symbolic link",
}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Turns an OSError of a write to `path` into a `RunError` that says what to do."""
    try:
        yield path
    except OSError as error:
        cure = CURES.get(error.errno or 0, "Remove the cause, or choose another `runs_dir=`")
        raise RunError(
            f"cannot write {path} ({error.strerror or error}). {cure},"
            " and run the same command again"
        ) from error
