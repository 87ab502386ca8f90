"""Shared parts of all configurations: ranges, seeds, the start from weights, run flags.

A configuration is a frozen dataclass. Its fields may be dataclasses of this file. Their fields are
ordinary flags, and config.yaml and result.json list them beside the others (`flat`).
"""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from jaxdl.errors import InputError
from jaxdl.files.paths import whole_path

Config = TypeVar("Config")


SMALLEST = 1.2e-38
"""Of the normal numbers of float32. Devices take smaller ones as 0."""


class Range(typing.NamedTuple):
    """The allowed range of a field, as an annotation: `Annotated[int, Range(2)]`."""

    least: float
    most: float = 2**31 - 1
    above: bool = False
    """Whether `least` itself is too small."""

    def refuse(self, field: str, value: Any) -> None:
        """Refuses a value outside the range, NaN included.

        Raises:
            InputError: naming the field, its value and the limit.
        """
        if self.above and not self.least < value < math.inf:
            raise InputError(f"`{field}={value}`: choose a number above {self.least:,}")
        if isinstance(value, float) and 0 < abs(value) < SMALLEST:
            raise InputError(f"`{field}={value}` is 0 in float32: choose at least {SMALLEST}")
        if value > self.most:
            raise InputError(f"`{field}={value}`: choose at most {self.most:,}")
        if not value >= self.least:
            raise InputError(f"`{field}={value}`: choose at least {self.least:,}")


Count = Annotated[int, Range(1)]
"""1, 2, 3 ..."""
AtLeastTwo = Annotated[int, Range(2)]
"""For classes to tell apart, and for samples of a confidence interval."""
Natural = Annotated[int, Range(0)]
"""0, 1, 2 ..."""
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, math.inf, above=True)]
"""Above 0, and finite."""
Share = Annotated[float, Range(0, 1)]
"""From 0 to 1."""
Rate = Annotated[float, Range(0, 0.999)]
"""From 0 to below 1, for dropout, say."""


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Folder, logging and devices of a run. On resuming, you may change any of these.

    Example:
        >>> import dataclasses, jaxdl
        >>> @dataclasses.dataclass(frozen=True)
        ... class Config:  # of an experiment; command_line makes flags of all fields
        ...     steps: int = 1000
        ...     run: jaxdl.RunFlags = jaxdl.RunFlags(log_every=10)
        >>> Config().run.log_every, Config().run.save_minutes
        (10, 2.0)
    """

    name: str = ""
    """Name of the run directory. By default the flags above this group give it, so the same
    command resumes the same run."""
    runs_dir: Path = Path(os.environ.get("JAXDL_RUNS", "runs"))
    """Folder of the run directories. The environment variable JAXDL_RUNS changes the default."""
    log_every: Count = 100
    """Steps between lines of metrics.jsonl."""
    save_minutes: NotNegative = 2.0
    """Minutes between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events. This needs the pip extra `tensorboard`."""
    devices: int = 0
    """Number of devices per step. 0 takes all."""
    coordinator: str = ""
    """With several processes: host:port of process 0."""
    processes: int = 0
    """Number of processes, if there are several."""
    process: int = -1
    """With several processes: the index of this one, from 0."""


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Seeds to train, all in one compiled program."""

    seed: Natural = 0
    """First seed."""
    seeds: Count = 1
    """Number of seeds. They count up from --seed."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from, instead of random ones."""

    init_from: Path | None = None
    """A .npz file of weights, or a run directory, of which seed i starts from seed i."""
    init_except: tuple[str, ...] = ()
    """Layers that still start from random weights."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """How many training examples are held out, and how often a training is evaluated on them."""

    validation: Natural = 5000
    """Number of training examples to hold out (the last ones)."""
    eval_every: Count = 400
    """Steps between validations, a multiple of --log-every."""


def flat(config: Any) -> dict[str, Any]:
    """The fields of a configuration by name, fields of nested dataclasses included.

    `run` stays nested, because its fields do not change what a run computes.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     steps: int = 9
    ...     random: Seeds = Seeds(seeds=3)
    >>> flat(Config())
    {'steps': 9, 'seed': 0, 'seeds': 3}

    Raises:
        InputError: if two fields have one name.
    """
    found: dict[str, Any] = {}
    for _, field, value in leaves(config):
        if field.name in found:
            raise InputError(f"two fields of the configuration are called {field.name}. Rename one")
        found[field.name] = dataclasses.asdict(value) if field.name == "run" else value
    return found


def unflat(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The configuration whose `flat` fields are `values`; a missing field has its default.

    Tuples and paths may be the lists and texts that YAML has for them.

    Raises:
        TypeError: if `values` has an unknown field.
    """
    rest, nested = _typed(kind, values), {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass
        default = _default(field)
        if field.name != "run" and dataclasses.is_dataclass(default):
            names = [inner.name for inner in dataclasses.fields(default)]
            own = _typed(type(default), {name: rest.pop(name) for name in names if name in rest})
            nested[field.name] = dataclasses.replace(default, **own)  # type: ignore[type-var]
    return kind(**rest, **nested)


def has_kind(hint: Any, kind: type) -> bool:
    """Whether values of a type are annotated so, as one of several or not.

    >>> has_kind(tuple[int, ...] | None, tuple), has_kind(list[tuple[int, int]], tuple)
    (True, False)
    """
    if hint is kind or typing.get_origin(hint) is kind:
        return True
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return has_kind(parts[0], kind)
    one_of = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return one_of and any(has_kind(part, kind) for part in parts)


def _typed(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(values)
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError):  # of a class inside a function, whose names are unknown
        return typed
    for name, value in values.items():
        hint = hints.get(name)
        if isinstance(value, list) and has_kind(hint, tuple):
            typed[name] = _as_tuple(value)
        elif isinstance(value, str) and has_kind(hint, Path) and not has_kind(hint, str):
            typed[name] = Path(value)
    return typed


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def check(config: Any) -> None:
    """Refuses values outside the ranges of their annotations, in nested dataclasses too.

    A field `eval_every` must be a multiple of `run.log_every`.

    Raises:
        InputError: naming the field, its value and the range.
    """
    every = None
    for owner, field, value in leaves(config):
        hint = typing.get_type_hints(type(owner), include_extras=True)[field.name]
        check_range(field.name, hint, value)
        if field.name == "run":
            check(value)
        if field.name == "eval_every":
            every = value
    if every is not None:
        check_eval_every(every, config.run)


def check_range(field: str, hint: Any, value: Any) -> None:
    """Refuses a value, or an item of a tuple, outside the ranges of its annotation.

    Raises:
        InputError: naming the field, the value and the range.
    """
    for range_ in ranges(hint):
        if value is not None:
            range_.refuse(field, value)
    if typing.get_origin(hint) is tuple:
        for range_ in ranges(typing.get_args(hint)[0]):
            for item in value:
                range_.refuse(field, item)


def check_eval_every(every: int, flags: "RunFlags") -> None:
    """Refuses steps between validations that are no log points, where a run gives its state.

    Raises:
        InputError: naming both.
    """
    if every < 1 or every % flags.log_every:
        raise InputError(
            f"`eval_every={every}` must be a multiple of `log_every={flags.log_every}`."
            " Change one of them"
        )


def each_once(field: str, values: Sequence[str], choices: Iterable[str]) -> None:
    """Refuses an empty list, an unknown name, and a repeated name.

    Raises:
        InputError: naming the field.
    """
    known = list(choices)
    if unknown := [value for value in values if value not in known]:
        raise InputError(f"`{field}={unknown[0]}`: choose among {' '.join(known)}")
    if not values or len(set(values)) < len(values):
        raise InputError(
            f"`{field}={' '.join(values)}`: give at least one name, and each name once"
        )


def seeds_below(random: Seeds, key: int) -> None:
    """Refuses training seeds that reach `key`, the seed of the validation and test draws.

    Raises:
        InputError: naming the field and its limit.
    """
    Range(0, key - 1 - random.seeds).refuse("seed", random.seed)


def ranges(hint: Any) -> list[Range]:
    """The ranges in a type; `Annotated[int, Range(2)]` has one, and so has its union with None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [range_ for each in typing.get_args(hint) for range_ in ranges(each)]
    return [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Range)]


def with_whole_paths(config: Any) -> Any:
    """The dataclass with `whole_path` of each path in it, those in nested dataclasses too.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     data_dir: Path = Path("~/data")
    >>> with_whole_paths(Config()).data_dir == Path.home() / "data"
    True

    Raises:
        InputError: as `whole_path`.
    """
    changed = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = with_whole_paths(value)
        elif isinstance(value, Path):
            changed[field.name] = whole_path(value, field.name)
        elif isinstance(value, tuple) and any(isinstance(each, Path) for each in value):
            changed[field.name] = tuple(whole_path(each, field.name) for each in value)
    return dataclasses.replace(config, **changed)


def leaves(config: Any) -> Iterator[tuple[Any, dataclasses.Field[Any], Any]]:
    """The dataclass, the field and its value, for each field that is not nested; `run` is one."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name != "run" and dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield config, field, value


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
