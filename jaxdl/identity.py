"""Which run a directory holds: config.yaml says it, and a lock keeps others out."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from jaxdl.checks import flag
from jaxdl.errors import InputError, RunError
from jaxdl.files import plain, write_text, writing
from jaxdl.progress import say
from jaxdl.provenance import provenance

Config = TypeVar("Config")

MAY_CHANGE = ("steps", "run")
"""The fields of a configuration that may change on resume; all others are the run's identity."""


def digest(config: Any) -> str:
    """Eight hexadecimal digits of the configuration's identity."""
    text = json.dumps(_identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_config(directory: Path, config: Any) -> bool:
    """Compares a configuration with that of the run in `directory`; says whether there is one.

    Raises:
        InputError: if they differ in more than may change.
        RunError: if the recorded one is damaged, or lost while checkpoints are there.
    """
    if not (directory / "config.yaml").exists():
        if (directory / "checkpoints").exists():
            raise RunError(
                f"{directory} has checkpoints and no config.yaml to say of what;"
                " choose another --name"
            )
        return False
    wanted, found = _identity(config), _recorded(directory)
    for key in sorted(wanted.keys() | (found.keys() - set(MAY_CHANGE))):
        if found.get(key) != wanted.get(key):
            raise InputError(
                f"{directory} was made with {flag(key)} {found.get(key)}, not {wanted.get(key)};"
                " only steps and run flags may change on resume: choose another --name"
            )
    return True


def record_config(directory: Path, config: Any) -> None:
    """Writes config.yaml: the configuration, and what is about to run it.

    Raises:
        RunError: if it cannot be written.
    """
    record = {"config": plain(config), "made_by": provenance()}
    write_text(directory / "config.yaml", yaml.safe_dump(record, sort_keys=False))


def load_config(directory: Path, kind: type[Config]) -> Config:
    """The configuration of a run, as the dataclass `kind` of its experiment.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged, or of another experiment.
    """
    if not (directory / "config.yaml").is_file():
        raise InputError(f"there is no run in {directory}: it has no config.yaml")
    found = {key: value for key, value in _recorded(directory).items() if key != "run"}
    try:
        config = kind(**found)
    except TypeError as error:
        raise RunError(f"{directory} is not a run of this experiment: {error}") from error
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # a dataclass, see above
        default, value = field.default, found.get(field.name, field.default)
        # Fields without a plain default, and paths, have no type that YAML could keep.
        if isinstance(default, int | float | str) and not isinstance(value, _kinds(default)):
            raise RunError(f"{directory}/config.yaml is damaged: {field.name} is {value!r}")
    return config


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the run directory; the lock ends with the process, however it ends.

    Raises:
        RunError: if another process holds it.
    """
    path = directory / "lock"
    with writing(path):
        file = path.open("a+b", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise RunError(
                f"{directory} is in use by {holder}; wait for it, or choose another --name"
            ) from error
        except OSError as error:
            # Some network file systems have no locks. To refuse all work there would be worse.
            say(f"no lock on {directory} ({error.strerror}): start no second process in it")
        with contextlib.suppress(OSError):  # a comfort for whoever finds the lock taken
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield


def _identity(config: Any) -> dict[str, Any]:
    """The part of a configuration that decides the numbers of a run."""
    return {key: value for key, value in plain(config).items() if key not in MAY_CHANGE}


def _recorded(directory: Path) -> dict[str, Any]:
    path = directory / "config.yaml"
    try:
        return dict(yaml.safe_load(path.read_text())["config"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}); choose another --name"
        ) from error


def _kinds(default: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)
