"""Grids of hyper-parameters: flags with several values, and one configuration per combination.

--lr 0.001 0.003 --inner-lr 0.1 0.4     four configurations
--shard 1/2                             of them the first and the third
"""

import dataclasses
import itertools
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdl.errors import InputError
from jaxdl.runs.config import flat, has_kind, leaves, unflat

MOST = 1000
"""The most configurations of a grid, because a wrong flag must not fill a disk."""


class Shard(NamedTuple):
    """Part `part` of `parts` of a grid, from 1."""

    part: int
    parts: int


class Grid(NamedTuple):
    """A grid as a command line asks for it.

    `axes`: the values of each field that has several, as they were written.
    `arguments`: those of the command of each combination; the last axis changes fastest.
    `shard`: the part that this command trains.
    """

    axes: Mapping[str, Sequence[str]]
    arguments: Sequence[Sequence[str]]
    shard: Shard | None = None

    def values(self) -> list[dict[str, str]]:
        """The values of each combination by field."""
        return [dict(zip(self.axes, each, strict=True)) for each in _product(self.axes)]

    def part(self) -> list[int]:
        """The numbers of the combinations that this command trains."""
        first, parts = self.shard or (1, 1)
        return list(range(first - 1, len(self.arguments), parts))


def asked(arguments: Sequence[str], default: Any) -> Grid | None:
    """The grid that the arguments of a command line ask for; None if no flag has several values.

    Args:
        default: the configuration; its fields that are no tuples have one value each.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     lr: float = 0.1
    ...     hidden: tuple[int, ...] = (8,)
    >>> grid = asked("--lr 0.1 0.3 --hidden 4 4 --shard 2/2".split(), Config())
    >>> grid.axes, grid.part()
    ({'lr': ('0.1', '0.3')}, [1])
    >>> grid.arguments[1]
    ['--hidden', '4', '4', '--lr', '0.3']

    Raises:
        InputError: if a value stands twice, a shard is none, or there are too many combinations.
    """
    rest: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    shard = None
    single, numbers = _single(default), _numeric(default)
    for name, words, values in _flags(arguments):
        if name == "shard":
            shard = _shard(values)
        elif name in single and len(values) > 1:
            told = [_as_number(value) if name in numbers else value for value in values]
            if len(set(told)) < len(values):
                raise InputError(f"`{name}={' '.join(values)}`: give each value once")
            axes[name] = tuple(values)
        else:
            rest += words
    if not axes:
        if shard is not None:
            raise InputError("--shard is a part of a grid. Give a flag several values, too")
        return None
    combinations = _product(axes)
    if len(combinations) > MOST:
        raise InputError(f"a grid of {len(combinations):,} runs: choose at most {MOST:,}")
    if shard is not None and shard.parts > len(combinations):
        raise InputError(
            f"--shard {shard.part}/{shard.parts}: the grid has {len(combinations)} runs. Choose at"
            " most as many shards"
        )
    names = ["--" + name.replace("_", "-") for name in axes]
    return Grid(
        axes,
        [[*rest, *itertools.chain(*zip(names, each, strict=True))] for each in combinations],
        shard,
    )


def named(config: Any, values: Mapping[str, str]) -> Any:
    """The configuration of a combination; a name in its run flags gets the values as its end.

    >>> from dataclasses import dataclass
    >>> from jaxdl.runs.config import RunFlags
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     run: RunFlags
    >>> named(Config(RunFlags(name="mine")), {"lr": "0.1", "inner_lr": "0.4"}).run.name
    'mine-lr0.1-inner_lr0.4'
    """
    if not config.run.name:
        return config
    name = "-".join([config.run.name, *(name + value for name, value in values.items())])
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """The configuration with other values of some fields, which may be traced."""
    return unflat(type(config), {**flat(config), **values, "run": config.run})


def _as_number(value: str) -> float | str:
    """A value as a number, where it is one: 0.001 and 1e-3 are the same run."""
    try:
        return float(value)
    except ValueError:
        return value


def _single(default: Any) -> set[str]:
    """The fields with one value, those of the run flags left out."""
    found = set()
    for owner, field, value in leaves(default):
        hint = typing.get_type_hints(type(owner)).get(field.name, field.type)
        if field.name != "run" and not isinstance(value, tuple) and not has_kind(hint, tuple):
            found.add(field.name)
    return found


def _numeric(default: Any) -> set[str]:
    """The fields whose default is a number."""
    return {
        field.name
        for _, field, value in leaves(default)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _flags(arguments: Sequence[str]) -> list[tuple[str, list[str], list[str]]]:
    """The name of each flag, its words, and its values; words before the first flag have none."""
    found: list[tuple[str, list[str], list[str]]] = []
    for word in arguments:
        if re.match(r"-[^\d.]", word):  # and no negative number
            name, equals, value = word.lstrip("-").partition("=")
            found.append((name.replace("-", "_"), [word], [value] * bool(equals)))
        elif found:
            found[-1][1].append(word)
            found[-1][2].append(word)
        else:
            found.append(("", [word], []))
    return found


def _product(axes: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    return list(itertools.product(*axes.values()))


def _shard(values: Sequence[str]) -> Shard:
    text = " ".join(values)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: write I/N, with I from 1 to N")
    return Shard(int(found[1]), int(found[2]))
