"""Ranges of a configuration, refused by name before anything is loaded or compiled.

Messages name fields, as `steps=0`; `cli.in_flags` makes flags of them.
"""

import math
from typing import Any

from jaxdl.errors import InputError


def at_least(config: Any, least: float, *fields: str, most: float = 2**31 - 1) -> None:
    """Refuses values of these fields of a configuration that are not in `[least, most]`.

    Raises:
        InputError: naming the field, its value and the range.
    """
    for field in fields:
        value = getattr(config, field)
        if not least <= value <= most:  # so that NaN is refused too
            above = value > most
            limit = f"at most {most:,}" if above else f"at least {least:,}"
            raise InputError(f"`{field}={value}`: choose {limit}")


def above_zero(config: Any, *fields: str) -> None:
    """Refuses values of these fields that are not positive and finite.

    Raises:
        InputError: naming the field and its value.
    """
    for field in fields:
        value = getattr(config, field)
        if not 0 < value < math.inf:
            raise InputError(f"`{field}={value}`: choose a number above 0")


def evaluated_at_log_points(config: Any) -> None:
    """Refuses an `eval_every` between the log points, where a run hands its state on.

    Raises:
        InputError: naming both fields.
    """
    if config.eval_every % config.run.log_every:
        raise InputError(
            f"`eval_every={config.eval_every}` must be a multiple of"
            f" `log_every={config.run.log_every}`"
        )
