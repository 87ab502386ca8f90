"""A check of the optimiser that a user gives."""

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
