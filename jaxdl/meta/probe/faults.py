"""What is wrong with the meta-gradient through an optimiser, read from `probe.slopes`."""

from collections.abc import Iterator

import numpy as np

from jaxdl.meta.probe.cases import CASES, SMALL, STRIDES
from jaxdl.meta.probe.cures import AT_ZERO, IN_GENERAL
from jaxdl.meta.probe.slopes import Slopes

LOST, HUGE = 1e-3, 1e5
"""A derivative as a share of that of gradient descent; and at zero gradients, as a multiple of that
elsewhere."""

OFF, ROUGH = 0.03, 0.01
"""By how much reverse mode may miss the slope, and finite differences may miss each other."""

Fault = tuple[str, str | dict[str, str]]
"""What is wrong, and what to use, which may depend on the parts of the optimiser."""


def faults(found: Slopes, *, steps: int, first_order: bool) -> Iterator[Fault]:
    """The faults of an optimiser that is right in general: one on zeros, one on second order.

    Args:
        steps: inner steps in training.
        first_order: whether the inner gradient counts as a constant.
    """
    if not np.isfinite(found.values[CASES.index("flat")]).all():
        yield "A task whose gradient is exactly zero makes the parameters NaN", AT_ZERO
    elif not is_finite(found, "dead"):
        yield (
            "The meta-gradient is NaN where a gradient is exactly zero, as of a dead unit",
            AT_ZERO,
        )
    elif not is_finite(found, "unbiased"):
        yield "The meta-gradient is NaN where biases are zero, as they begin", AT_ZERO
    elif not is_finite(found, "flat"):
        yield "The meta-gradient is NaN where the gradient of a task is exactly zero", AT_ZERO
    if first_order:
        return
    if share(found, "first" if steps == 1 else "small") < LOST:
        more = "more inner steps, or " if share(found, "small") > LOST else ""
        yield (
            "This is first-order MAML at second-order cost, because the steps do not depend on the"
            " size of the gradient",
            f"{more}jaxdl.fomaml, which gives the same and costs less",
        )
    elif is_off(found, "generic"):
        yield "The second-order part of the meta-gradient is wrong", IN_GENERAL
    elif is_off(found, "flat"):
        yield "The meta-gradient is wrong where the gradient of a task is exactly zero", AT_ZERO
    elif largest(found, "flat") > HUGE * max(largest(found, "generic"), largest(found, "small")):
        yield "A task whose gradient is exactly zero outweighs 100,000 others", AT_ZERO


def is_finite(found: Slopes, case: str) -> bool:
    """Whether no derivative is NaN or infinite in one of `CASES`."""
    at = CASES.index(case)
    return bool(np.isfinite([*found.by_params[at], *found.by_grads[at]]).all())


def largest(found: Slopes, case: str) -> float:
    """The largest derivative by a gradient."""
    return float(np.abs(found.by_grads[CASES.index(case)]).max())


def share(found: Slopes, case: str) -> float:
    """How far the steps follow small gradients: about 1 for gradient descent, 0 for their signs.

    The learning rate cancels. It is infinite if there are no steps.
    """
    at = CASES.index(case)
    moved = abs(found.values[at, 0])
    return float(SMALL * np.abs(found.by_grads[at]).sum() / moved) if moved else np.inf


def is_off(found: Slopes, case: str) -> bool:
    """Whether reverse mode misses the slope, at a point where finite differences show one."""
    at = CASES.index(case)
    here, ahead, behind, far_ahead, far_behind = found.values[at]
    near, far = (ahead - behind) / (2 * STRIDES[at]), (far_ahead - far_behind) / (4 * STRIDES[at])
    slope, along = (4 * near - far) / 3, found.along[at]  # near and far miss it as 1 and 4
    size, noise = max(abs(slope), abs(along)), 1e-6 * abs(here) / STRIDES[at]
    is_smooth = abs(near - far) < ROUGH * size  # there is no kink, no jump and little rounding
    return bool(is_smooth and ahead != behind and abs(along - slope) > OFF * size + noise)
