"""Flags by the names of fields: `--log-every` of `log_every`, in messages and among arguments."""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence


def in_flags(sentence: str, flags: Mapping[str, str]) -> str:
    """A message of the library with its arguments written as flags.

    An argument stands in backticks, with an equals sign and perhaps a value. A name without a flag
    stays as it is.

    Args:
        flags: the flag of each argument, by the argument's name; see `flags_of`.

    >>> flags = {"data_dir": "--data-dir", "steps": "--steps", "tensorboard": "--tensorboard"}
    >>> in_flags("let `data_dir=` name a folder", flags)
    'let --data-dir name a folder'
    >>> in_flags("`steps=0`: choose at least 1, or leave `tensorboard=True` out", flags)
    '--steps 0: choose at least 1, or leave --tensorboard out'
    """

    def as_flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in flags:
            return found[0]
        if value in ("True", "False"):
            return flags[name] if value == "True" else flags[name].replace("--", "--no-", 1)
        return f"{flags[name]} {value}".rstrip()

    return re.sub(r"`(\w+)=([^`]*)`", as_flag, sentence)


def flags_of(config: type) -> dict[str, str]:
    """The flag of each field of a dataclass, by name, fields of nested dataclasses included."""
    found: dict[str, str] = {}
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        inner = types[field.name]
        nested = isinstance(inner, type) and dataclasses.is_dataclass(inner)
        found |= flags_of(inner) if nested else {field.name: flag(field.name)}
    return found


def given(arguments: Sequence[str], field: str) -> str | None:
    """The last value of a field's flag among the arguments of a command line, or None.

    >>> given(["--shots", "5", "--test_data=digits"], "test_data")
    'digits'
    """
    found = None
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag(field):
            found = value if equals else next(iter(arguments[i + 1 :]), "")
    return found


def flag(field: str) -> str:
    """The flag of a field: `--log-every` of `log_every`."""
    return "--" + field.replace("_", "-")
