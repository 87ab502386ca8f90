"""Whether an optimiser can be an inner one: it is refused, warned of, or neither.

`slopes` measures it, `faults` reads the numbers, and `cures` says what to use instead.
docs/inner-optimisers.md has the whole table.
"""

import sys
import warnings
from pathlib import Path

import optax

from jaxdl.errors import InputError
from jaxdl.meta.probe.cures import IN_GENERAL, cure, parts
from jaxdl.meta.probe.faults import faults, is_finite
from jaxdl.meta.probe.slopes import NotReversibleError, slopes
from jaxdl.optim.check import check_steps, check_tx

SEE = "The page inner-optimisers of the documentation compares the optimisers of Optax"


class InnerOptimiserWarning(UserWarning):
    """The meta-gradient through an inner optimiser is NaN or wrong at some points, or first-order.

    >>> import warnings, jaxdl, optax
    >>> from jaxdl.meta.inner import InnerOptimiserWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", InnerOptimiserWarning)
    ...     try:
    ...         jaxdl.maml(jaxdl.mlp([1]), jaxdl.mean_squared_error, tx=optax.adam(0.1), steps=2)
    ...     except InnerOptimiserWarning as warning:
    ...         print(str(warning).partition(" (")[0])
    The meta-gradient is NaN where a gradient is exactly zero, as of a dead unit
    """


def check(tx: optax.GradientTransformation, *, steps: int, first_order: bool) -> None:
    """Refuses an inner optimiser whose meta-gradient is NaN, and warns of one that may fail.

    A warning points at the line outside jaxdl that led here. An optimiser that cannot be asked, see
    `slopes.slopes`, passes.

    Args:
        steps: inner steps in training.
        first_order: whether the inner gradient counts as a constant.

    Raises:
        InputError: if the meta-gradient is NaN wherever it is taken, or cannot be taken; if `tx` is
            no optimiser, or `steps` is below 0.
    """
    check_tx(tx)
    check_steps(steps)
    if steps == 0:
        return
    name = f"inner optimiser: {', '.join(parts(tx)) or 'tx'}"
    try:
        found = slopes(tx, first_order=first_order)
    except NotReversibleError as error:
        raise InputError(
            f"no meta-gradient can be taken ({name}): {error}. Use {cure(tx, IN_GENERAL)}. {SEE}"
        ) from error
    if found is None:
        return
    if not is_finite(found, "generic"):
        raise InputError(f"every meta-gradient is NaN ({name}). Use {cure(tx, IN_GENERAL)}. {SEE}")
    for wrong, use in faults(found, steps=steps, first_order=first_order):
        instead = use if isinstance(use, str) else cure(tx, use)
        _warn(f"{wrong} ({name}). Use {instead}. {SEE}")


def _warn(text: str) -> None:
    """Warns at the first line that is not in jaxdl, as `skip_file_prefixes` does (Python 3.12)."""
    folder, frame = str(Path(__file__).parents[2]), sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(folder):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    seen = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__", "<unknown>")  # of None, Python shows nothing
    warnings.warn_explicit(text, InnerOptimiserWarning, file, line, module=name, registry=seen)
