"""The identity of a run directory: config.yaml records it, and a lock keeps other processes out."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import plain, write_text, writing
from jaxdl.files.paths import whole_path
from jaxdl.runs.config import flat, leaves, unflat
from jaxdl.runs.progress import say
from jaxdl.runs.provenance import provenance
from jaxdl.runs.recorded import CONFIG, check_value, parsed, recorded, written

Config = TypeVar("Config")

MAY_CHANGE = ("steps", "run")
"""The fields that may change on resume; all other fields are the run's identity."""
DIGESTS = {"init_from": "init_weights", "learner": "learner_code", "path": "data_content"}
"""Fields that may name a file, and the keys in config.yaml for the digest of what the file holds.

The digest is part of the identity, and the path is not."""
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a folder that this process may read only."""
EQUAL = (("estimator", "auto", "exact"),)
"""Fields with a value that gives the results of another value, which older runs may have."""
Contents = Mapping[str, str]
"""The digest of what a file holds, by the field that names the file."""
NO_FILES: Contents = MappingProxyType({})


def added(default: Any) -> Any:
    """A field that was added to a configuration later.

    With its default value, the field does not change the identity. So older runs keep their name
    and go on.
    """
    return dataclasses.field(default=default, metadata={"added": True})


class Former(NamedTuple):
    """The earlier form of an experiment that was split off another one, so that its old runs go on.

    `experiment`: the folder inside `runs_dir` that holds the old runs.
    `fields`: fields that only the old configuration had, with the values that mean this
        experiment. They stay part of the identity.
    `ignored`: names of `fields` that may have another value in an old run.
    """

    experiment: str
    fields: Mapping[str, Any] = {}
    ignored: tuple[str, ...] = ()


def digest(config: Any, contents: Contents = NO_FILES, former: Former | None = None) -> str:
    """Eight hexadecimal digits of the run's identity.

    The identity is the configuration, with the digest of a file in place of its path.
    """
    identity, later = _identity(_record(config, contents, former)), _added(config)
    text = json.dumps({k: v for k, v in identity.items() if later.get(k, ...) != v}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def directory(
    experiment: str,
    config: Any,
    label: str = "",
    contents: Contents = NO_FILES,
    former: Former | None = None,
) -> Path:
    """The run directory of a configuration, by the name in its run flags, else by its identity.

    An old run in the folder of the `former` experiment is found there.

    Raises:
        InputError: if the name is not a folder name, or as `whole_path`, or the folder or one above
            it is a file.
    """
    identity = digest(config, contents, former)
    name = config.run.name or "-".join(part for part in (label, identity) if part)
    if Path(name).name != name or name == ".." or name[0] in "- " or not name.isprintable():
        raise InputError(
            f"`name={name!r}` must be a plain directory name: printable, without /, and without -"
            " at its start. Choose another"
        )
    if len(os.fsencode(name)) > 255:
        raise InputError(f"`name={name[:20]}...` is too long. Choose at most 255 bytes")
    found: Path = whole_path(config.run.runs_dir, "runs_dir") / experiment / name
    if former is not None and not found.exists():
        before: Path = config.run.runs_dir / former.experiment / name
        found = before if before.exists() else found
    for place in (found, *found.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder. Choose another `runs_dir=`")
    return found


def check_config(
    directory: Path, config: Any, contents: Contents = NO_FILES, former: Former | None = None
) -> bool:
    """Compares a configuration with the recorded one in `directory`; False if none is recorded.

    Raises:
        InputError: if they differ in a field that must not change.
        RunError: if the recorded one is damaged, or is missing although there are checkpoints.
    """
    if not (directory / CONFIG).exists():
        if (directory / "checkpoints").exists():
            raise RunError(
                f"{directory} has checkpoints and no config.yaml that describes them."
                " Choose another `name=`"
            )
        return False
    stored = recorded(directory)
    record = _record(config, contents, former)
    wanted, found = map(_identity, (record, {**_added(config), **stored}))
    for name in () if former is None else former.ignored:
        wanted.pop(name, None)
        found.pop(name, None)
    weights = DIGESTS["init_from"]
    if wanted.get(weights) != found.get(weights):
        raise InputError(
            f"{directory} started from {stored.get('init_from') or 'no weights'}, and not from"
            f" what is now in {flat(config).get('init_from') or 'none'}: choose"
            " another `name=`"
        )
    for field, key in DIGESTS.items():
        if key in wanted and key in found and wanted[key] != found[key]:
            raise InputError(
                f"{directory} was made with another content of `{field}={flat(config)[field]}`."
                " Choose another `name=`"
            )
    for key in sorted(wanted.keys() | found.keys()):
        if found.get(key) != wanted.get(key):
            raise InputError(
                f"{directory} was made with `{key}={found.get(key)}`, not {wanted.get(key)}."
                " Choose another `name=`, because only steps and run flags may change on resume"
            )
    return True


def made_by(directory: Path) -> dict[str, Any]:
    """The `provenance` of the process that last trained a run; nothing where it cannot be read."""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        return dict(parsed((directory / CONFIG).read_text())["made_by"])
    return {}


def refuse_other_steps(directory: Path, steps: int, cure: str, part: str = "") -> None:
    """Refuses a change of `steps` after training has begun, if the schedule depends on them.

    `cure` is the field that fixes the length of the schedule. `part` is the part of the run that
    may have begun.

    Raises:
        InputError: naming both flags.
        RunError: if the recorded configuration is damaged.
    """
    begun = any(path.name.isdecimal() for path in (directory / part / "checkpoints").glob("*"))
    if begun and (found := recorded(directory).get("steps")) != steps:
        raise InputError(
            f"{directory} was made with `steps={found}`, and its schedule depends on them, so"
            f" {steps} steps would be another training. Choose another `name=`; there, set"
            f" `{cure}=` if the run may get more steps later"
        )


def record_config(
    directory: Path, config: Any, contents: Contents = NO_FILES, former: Former | None = None
) -> None:
    """Writes config.yaml: the configuration, the digests of files, and the provenance.

    Raises:
        RunError: if it cannot be written.
    """
    record = {"config": _record(config, contents, former), "made_by": provenance()}
    write_text(directory / CONFIG, written(record))


@contextlib.contextmanager
def forgotten_if_refused(directory: Path) -> Iterator[None]:
    """Frees the name after an InputError: removes config.yaml if nothing else is stored.

    A directory that then holds the lock alone is removed, too.
    """
    try:
        yield
    except InputError:
        files = (path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
        stored = {str(path.relative_to(directory)) for path in files}
        if stored <= {CONFIG, "lock"} and not (directory / "checkpoints").exists():
            with contextlib.suppress(OSError):  # the user must see the InputError
                (directory / CONFIG).unlink(missing_ok=True)
                if [path.name for path in directory.iterdir()] == ["lock"]:
                    (directory / "lock").unlink()
                    directory.rmdir()
        raise


def load_config(directory: Path, kind: type[Config], former: Former | None = None) -> Config:
    """The configuration of a run, as the dataclass `kind` of its experiment.

    Run flags have their defaults. `init_from` is None, because readers of trained parameters do not
    need the start weights, which may be gone.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged, or of another experiment.
    """
    found = recorded_config(directory)
    gone = () if former is None else former.fields
    found = {k: v for k, v in found.items() if k not in ("run", "init_from", *gone)}
    found = {k: v for k, v in found.items() if k not in DIGESTS.values()}
    try:
        config = unflat(kind, found)
    except TypeError as error:
        raise RunError(
            f"{directory} is not a run of this experiment ({error}). Give the folder of one"
        ) from error
    for owner, field, value in leaves(config):
        if field.name != "run":
            check_value(directory, type(owner), field.name, value)
    return config


def recorded_config(directory: Path) -> dict[str, Any]:
    """The fields of a run's configuration as config.yaml has them, for any experiment.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged.
    """
    if not (directory / CONFIG).is_file():
        raise InputError(
            f"there is no run in {directory}: it has no config.yaml. Give the folder of a run"
        )
    return recorded(directory)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Locks the run directory; the lock ends with the process, even if the process is killed.

    Raises:
        RunError: if another process holds the lock.
    """
    path = directory / "lock"
    with writing(path):  # what a symbolic link points to would be emptied below
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno in UNWRITABLE and (directory / "result.json").exists():
                handle = None  # to read the result needs no lock
            else:
                raise
    if handle is None:
        yield
        return
    with open(handle, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise RunError(
                f"{directory} is in use by {holder}. Wait for it, or choose another `name=`"
            ) from error
        except OSError as error:
            # Some network file systems have no locks. They must still be usable.
            say(f"no lock on {directory} ({error.strerror}). Start no second process in it")
        with contextlib.suppress(OSError):  # only the message above needs it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield


def _record(config: Any, contents: Contents, former: Former | None) -> dict[str, Any]:
    gone = {} if former is None else plain(former.fields)
    digests = {DIGESTS[field]: digest for field, digest in contents.items()}
    return {**plain(flat(config)), **gone, **digests}


def _added(config: Any) -> dict[str, Any]:
    """The defaults of the fields that were added to a configuration later."""
    fields = (field for _, field, _ in leaves(config))
    return {field.name: plain(field.default) for field in fields if field.metadata.get("added")}


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a recorded configuration that decides the results of a run.

    It holds the digest of a file, not its path. A run without start weights has no `init_except`.
    """
    left_out = {*MAY_CHANGE, "init_from"}
    left_out |= {field for field, key in DIGESTS.items() if key in record}
    left_out |= set() if DIGESTS["init_from"] in record else {"init_except"}
    kept = {key: value for key, value in record.items() if key not in left_out}
    return kept | {key: older for key, value, older in EQUAL if kept.get(key) == value}
