"""Memory of a meta-gradient: `auto`, `segmented`, and the plan that `descend` follows.

docs/memory.md has the memory and the time of each, from 1 to 1,000 inner steps.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

from jaxdl.errors import InputError
from jaxdl.meta.estimators import (
    Estimator,
    InnerGrad,
    InnerLoss,
    exact,
    first_order,
    mixed_mode,
    rematerialised,
)
from jaxdl.meta.segments import Step, cost, memory, segment_length
from jaxdl.types import PyTree

_LOG = logging.getLogger(__name__)

FEW_STEPS = 8
"""Steps that `auto` never cuts into segments, so that it need not find their memory."""

FREE_BYTES = 2**28
"""Memory per task that `auto` gives to speed."""


def auto(loss: InnerLoss) -> InnerGrad:
    """Exact, with as little computed again as memory allows. It is the default of learners.

    `descend` counts what a backward pass keeps, by shapes. Up to 8 steps, or up to 256 MiB per
    task, it is `exact`. Beyond, it is `rematerialised` up to 256 MiB, and beyond that in segments,
    too: see `segmented`. A logger says what was chosen: `logging.basicConfig(level="INFO")`.

    >>> import jax, jaxdl
    >>> inner = jaxdl.auto(lambda w, key: (w**2, {}))
    >>> round(float(jax.grad(lambda w: w - 0.1 * inner(w, None)[0])(3.0)), 6)
    0.8
    """
    return exact(loss)


@dataclasses.dataclass(frozen=True)
class Segmented:
    """An `Estimator` that lets `descend` keep the first parameters of each segment alone."""

    estimator: Estimator
    """That of each step."""
    length: int | None = None
    """Steps per segment. None finds the length that needs the least memory."""

    def __call__(self, loss: InnerLoss) -> InnerGrad:
        """The inner gradient of `estimator`. `descend` does the rest."""
        return self.estimator(loss)


def segmented(estimator: Estimator = exact, length: int | None = None) -> Segmented:
    """The meta-gradient of `estimator`, with memory that grows as the root of the steps.

    The backward pass computes the inner steps of each segment again. So a step costs one inner
    gradient more, however long the segments are.

    Args:
        estimator: of each inner step. `rematerialised` or `mixed_mode` keep less of a step.
        length: steps per segment. None finds the length that needs the least memory, by shapes.

    Raises:
        InputError: if `length` is below 1.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> loss = lambda w, key: (jnp.sum(w**4), {})
    >>> def end(w, estimator):
    ...     return jaxdl.descend(loss, w, optax.sgd(0.1), steps=50, estimator=estimator)[0]
    >>> slopes = [jax.grad(end)(1.0, each) for each in (jaxdl.segmented(), jaxdl.exact)]
    >>> bool(jnp.allclose(*slopes))
    True
    """
    if length is not None and length < 1:
        raise InputError(f"`length={length}`: choose 1 or more steps per segment")
    return Segmented(estimator, length)


def plan(
    estimator: Estimator,
    step_of: Callable[[Estimator], Step],
    carry: PyTree,
    inputs: PyTree,
    steps: int,
) -> tuple[Step, int]:
    """The inner step, and how many of them are a segment. `steps` means that there are none.

    Args:
        step_of: makes the step with an estimator.
        carry: of the first step.
        inputs: of all steps, with leading axis `[steps]`.
    """
    step, length = step_of(estimator), steps
    if steps < 2 or not (isinstance(estimator, Segmented) or estimator is auto):
        return step, steps
    if isinstance(estimator, Segmented):
        length = estimator.length or segment_length(steps, cost(step, carry, inputs))
    elif steps > FEW_STEPS:
        whole = memory(steps, steps, cost(step, carry, inputs))
        said = "exact, which keeps"
        if whole > FREE_BYTES:
            said, step = "rematerialised, because exact would keep", step_of(rematerialised)
            left = cost(step, carry, inputs)
            if memory(steps, steps, left) > FREE_BYTES:
                length = segment_length(steps, left)
                said = f"rematerialised in segments of {length}, because exact would keep"
        size = f"{whole / 2**20:,.0f} MiB per task"
        _LOG.info("a meta-gradient through %d inner steps: %s %s", steps, said, size)
    return step, min(steps, length)


EstimatorName = Literal[
    "auto",
    "exact",
    "first-order",
    "rematerialised",
    "mixed-mode",
    "segments",
    "mixed-segments",
]

ESTIMATORS: dict[EstimatorName, Estimator] = {
    "auto": auto,
    "exact": exact,
    "first-order": first_order,
    "rematerialised": rematerialised,
    "mixed-mode": mixed_mode,
    "segments": segmented(),
    "mixed-segments": segmented(mixed_mode),
}
"""The estimators by their names on the command line."""
