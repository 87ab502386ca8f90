"""Checks of the optimiser that a user gives, and of the number of its steps in a task."""

from typing import Any

from jaxdl.errors import InputError


def check_tx(tx: Any) -> None:
    """Refuses what is no Optax transformation, such as `optax.adam` without a learning rate.

    >>> import optax
    >>> check_tx(optax.adam(0.001))

    Raises:
        InputError: saying what to give.
    """
    if hasattr(tx, "init") and hasattr(tx, "update"):
        return
    if callable(tx):
        name = getattr(tx, "__name__", "it")
        raise InputError(f"`tx=` is the function {name}. Call it: {name}(0.001), say")
    raise InputError(
        f"`tx={tx}` is no optimiser. Give a transformation of Optax: optax.adam(0.001), say"
    )


def check_steps(steps: int) -> None:
    """Refuses fewer inner steps than none.

    Raises:
        InputError: if `steps` is below 0.
    """
    if steps < 0:
        raise InputError(f"`steps={steps}`: choose 0 or more inner steps")
