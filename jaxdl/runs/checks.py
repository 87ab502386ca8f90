"""Ranges of flags, refused with the flag's name before anything is loaded or compiled."""

import math
from typing import Any

from jaxdl.errors import InputError


def at_least(config: Any, least: float, *fields: str, most: float = 2**31 - 1) -> None:
    """Refuses values of these fields of a configuration that are not in `[least, most]`.

    Raises:
        InputError: naming the flag, its value and the range.
    """
    for field in fields:
        value = getattr(config, field)
        if not least <= value <= most:  # so that NaN is refused too
            above = value > most
            limit = f"at most {most:,}" if above else f"at least {least:,}"
            raise InputError(f"{flag(field)} {value}: choose {limit}")


def above_zero(config: Any, *fields: str) -> None:
    """Refuses values of these fields that are not positive and finite.

    Raises:
        InputError: naming the flag and its value.
    """
    for field in fields:
        value = getattr(config, field)
        if not 0 < value < math.inf:
            raise InputError(f"{flag(field)} {value}: choose a number above 0")


def evaluated_at_log_points(config: Any) -> None:
    """Refuses an `eval_every` between the log points, where a run hands its state on.

    Raises:
        InputError: naming both flags.
    """
    if config.eval_every % config.run.log_every:
        raise InputError(
            f"--eval-every {config.eval_every} must be a multiple of --log-every"
            f" {config.run.log_every}"
        )


def flag(field: str) -> str:
    """The flag of a field: `--log-every` of `log_every`."""
    return "--" + field.replace("_", "-")
