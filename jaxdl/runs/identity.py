"""Which run a directory holds: config.yaml says it, and a lock keeps others out."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import plain, write_text, writing
from jaxdl.runs.config import flat, leaves, unflat
from jaxdl.runs.progress import say
from jaxdl.runs.provenance import provenance

Config = TypeVar("Config")

MAY_CHANGE = ("steps", "run")
"""The fields of a configuration that may change on resume; all others are the run's identity."""
WEIGHTS = "init_weights"
"""Under this name the digest of the weights in `init_from` stands beside the fields."""


def added(default: Any) -> Any:
    """A field that a configuration got later. With its default the identity is that without it, so
    that runs from before are found by their name and go on."""
    return dataclasses.field(default=default, metadata={"added": True})


class Former(NamedTuple):
    """What an experiment was before it had a file of its own, so that runs from then go on.

    `experiment`: the folder inside `runs_dir` where such runs lie.
    `fields`: fields that the configuration had then and has no more, with the values that this
        experiment stands for. They stay part of the identity.
    `ignored`: names of `fields` that may have another value in a run from then.
    """

    experiment: str
    fields: Mapping[str, Any] = {}
    ignored: tuple[str, ...] = ()


def digest(config: Any, weights: str = "", former: Former | None = None) -> str:
    """Eight hexadecimal digits of the identity: the configuration, and the digest of the weights
    that a run starts from, where it does."""
    identity, later = _identity(_record(config, weights, former)), _added(config)
    text = json.dumps({k: v for k, v in identity.items() if later.get(k, ...) != v}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def directory(
    experiment: str,
    config: Any,
    label: str = "",
    weights: str = "",
    former: Former | None = None,
) -> Path:
    """The run directory of a configuration, by the name in its run flags, else by its identity.

    A run that lies where its experiment stored runs before is found there.

    Raises:
        InputError: if the name is none of a folder, or it or a folder above it is a file.
    """
    identity = digest(config, weights, former)
    name = config.run.name or "-".join(part for part in (label, identity) if part)
    if Path(name).name != name or name == "..":
        raise InputError(f"`name={name!r}` must be a plain directory name")
    if len(os.fsencode(name)) > 255:
        raise InputError(f"`name={name[:20]}...` is too long: choose at most 255 letters")
    found: Path = config.run.runs_dir / experiment / name
    if former is not None and not found.exists():
        before: Path = config.run.runs_dir / former.experiment / name
        found = before if before.exists() else found
    for place in (found, *found.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder: choose another `runs_dir=`")
    return found


def check_config(
    directory: Path, config: Any, weights: str = "", former: Former | None = None
) -> bool:
    """Compares a configuration with that of the run in `directory`; says whether there is one.

    Raises:
        InputError: if they differ in more than may change.
        RunError: if the recorded one is damaged, or lost while checkpoints are there.
    """
    if not (directory / "config.yaml").exists():
        if (directory / "checkpoints").exists():
            raise RunError(
                f"{directory} has checkpoints and no config.yaml to say of what;"
                " choose another `name=`"
            )
        return False
    recorded = _recorded(directory)
    record = _record(config, weights, former)
    wanted, found = map(_identity, (record, {**_added(config), **recorded}))
    for name in () if former is None else former.ignored:
        wanted.pop(name, None)
        found.pop(name, None)
    if wanted.get(WEIGHTS) != found.get(WEIGHTS):
        raise InputError(
            f"{directory} started from {recorded.get('init_from') or 'no weights'}, and not from"
            f" what is now in {flat(config).get('init_from') or 'none'}: choose"
            " another `name=`"
        )
    for key in sorted(wanted.keys() | found.keys()):
        if found.get(key) != wanted.get(key):
            raise InputError(
                f"{directory} was made with `{key}={found.get(key)}`, not {wanted.get(key)};"
                " only steps and run flags may change on resume: choose another `name=`"
            )
    return True


def refuse_other_steps(directory: Path, steps: int, cure: str, part: str = "") -> None:
    """Refuses to go on with a run whose schedule follows its steps, if it began with others.

    `cure` is the field that fixes the length of the schedule; `part` the part of the run that may
    have begun.

    Raises:
        InputError: naming the flags of both.
        RunError: if the recorded configuration is damaged.
    """
    begun = any(path.name.isdecimal() for path in (directory / part / "checkpoints").glob("*"))
    if begun and (found := _recorded(directory).get("steps")) != steps:
        raise InputError(
            f"{directory} was made with `steps={found}`, which its schedule follows: with"
            f" {steps} it would be another training; choose another `name=`, and `{cure}=` there"
            " for a run that may get more steps later"
        )


def record_config(
    directory: Path, config: Any, weights: str = "", former: Former | None = None
) -> None:
    """Writes config.yaml: the configuration, the digest of the weights that the run starts from,
    and what is about to run it.

    Raises:
        RunError: if it cannot be written.
    """
    record = {"config": _record(config, weights, former), "made_by": provenance()}
    write_text(directory / "config.yaml", yaml.safe_dump(record, sort_keys=False))


@contextlib.contextmanager
def forgotten_if_refused(directory: Path) -> Iterator[None]:
    """Removes config.yaml at an InputError if nothing else is stored: the name is free again."""
    try:
        yield
    except InputError:
        files = (path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
        stored = {str(path.relative_to(directory)) for path in files}
        if stored <= {"config.yaml", "lock"} and not (directory / "checkpoints").exists():
            with contextlib.suppress(OSError):  # it is the refusal that the user must see
                (directory / "config.yaml").unlink(missing_ok=True)
        raise


def load_config(directory: Path, kind: type[Config], former: Former | None = None) -> Config:
    """The configuration of a run, as the dataclass `kind` of its experiment.

    Run flags have their defaults, and `init_from` is None: what the run started from is of no
    matter to who reads what it has learnt, and may be gone.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged, or of another experiment.
    """
    found = recorded_config(directory)
    gone = () if former is None else former.fields
    found = {k: v for k, v in found.items() if k not in ("run", "init_from", WEIGHTS, *gone)}
    try:
        config = unflat(kind, found)
    except TypeError as error:
        raise RunError(f"{directory} is not a run of this experiment: {error}") from error
    for field, _, value in leaves(config):
        default = field.default
        # Fields without a plain default, and paths, have no type that YAML could keep.
        if isinstance(default, int | float | str) and not isinstance(value, _kinds(default)):
            raise RunError(f"{directory}/config.yaml is damaged: {field.name} is {value!r}")
    return config


def recorded_config(directory: Path) -> dict[str, Any]:
    """The fields of the configuration of a run, whatever its experiment, as config.yaml has them.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged.
    """
    if not (directory / "config.yaml").is_file():
        raise InputError(
            f"there is no run in {directory}: it has no config.yaml. Give the folder of a run"
        )
    return _recorded(directory)


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
                f"{directory} is in use by {holder}; wait for it, or choose another `name=`"
            ) from error
        except OSError as error:
            # Some network file systems have no locks. To refuse all work there would be worse.
            say(f"no lock on {directory} ({error.strerror}): start no second process in it")
        with contextlib.suppress(OSError):  # a comfort for whoever finds the lock taken
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield


def _record(config: Any, weights: str, former: Former | None) -> dict[str, Any]:
    gone = {} if former is None else plain(former.fields)
    return {**plain(flat(config)), **gone, **({WEIGHTS: weights} if weights else {})}


def _added(config: Any) -> dict[str, Any]:
    """The defaults of the fields that a configuration got later."""
    fields = (field for field, _, _ in leaves(config))
    return {field.name: plain(field.default) for field in fields if field.metadata.get("added")}


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a recorded configuration that decides the numbers of a run.

    Of a start from weights that is what they are and not where they lie; without it, nothing.
    """
    left_out = {*MAY_CHANGE, "init_from"} | (set() if WEIGHTS in record else {"init_except"})
    return {key: value for key, value in record.items() if key not in left_out}


def _recorded(directory: Path) -> dict[str, Any]:
    path = directory / "config.yaml"
    try:
        return dict(yaml.safe_load(path.read_text())["config"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}); choose another `name=`"
        ) from error


def _kinds(default: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)
