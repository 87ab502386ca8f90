"""config.yaml of a run, which may be damaged."""

import typing
from pathlib import Path
from typing import Any

import yaml

from jaxdl.errors import InputError, damaged, in_short
from jaxdl.runs.config import check_range
from jaxdl.runs.keywords import fits

CONFIG = "config.yaml"


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which jaxdl never writes: a few of them make a value of many GB."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def written(value: Any) -> str:
    """A YAML text, which `parsed` reads."""
    return yaml.safe_dump(value, sort_keys=False)


def parsed(text: str) -> Any:
    """The value of a YAML text.

    >>> parsed("{steps: 3, lr: [0.1]}")
    {'steps': 3, 'lr': [0.1]}

    Raises:
        ValueError: if it is none, or nested deeper than Python can follow, or has an alias.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def recorded(directory: Path) -> dict[str, Any]:
    """The recorded configuration of a run.

    Raises:
        RunError: if it is missing, or damaged.
    """
    path = directory / CONFIG
    try:
        whole = parsed(path.read_text())
        found = whole.get("config") if isinstance(whole, dict) else None
        if not isinstance(found, dict):
            raise ValueError("it has no configuration")
    except (OSError, ValueError) as error:
        raise damaged(path, in_short(error), "Choose another `name=`") from error
    if strange := [key for key in found if not isinstance(key, str)]:
        raise damaged(path, f"the key {strange[0]!r} is no text", "Choose another `name=`")
    return found


def check_value(directory: Path, kind: type, name: str, value: Any) -> None:
    """Refuses a recorded value of another type than the field of the class, or out of its range.

    Raises:
        RunError: naming the field and the value.
    """
    try:
        hint = typing.get_type_hints(kind, include_extras=True)[name]
    except (NameError, AttributeError):  # of a class inside a function, whose names are unknown
        return
    try:
        if not fits(value, hint):
            raise InputError(f"{name} is {in_short(repr(value))}")
        check_range(name, hint, value)
    except InputError as error:
        raise damaged(directory / CONFIG, str(error)) from error
