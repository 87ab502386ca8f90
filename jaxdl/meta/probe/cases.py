"""The points at which an optimiser is asked: six parameters, three gradients of them, and lines."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

STEPS = 3
"""The fewest that show the NaN of `optax.radam`, whose first two steps are fine."""

CASES = ("generic", "small", "first", "dead", "flat", "unbiased")
"""Gradients without a zero; small ones, which no clipping touches; of these the first step alone;
half of each gradient zero, as of a dead unit; all of it zero, as of a fitted support set; half of
the parameters zero, as biases begin."""

SMALL = 0.03
"""The size of small gradients; those of the other cases are about 1."""

STRIDES = np.array([0.02, 0.02 * SMALL, 0.02 * SMALL, 0.02, 1e-15, 0.02])
"""Of the finite differences: among numbers near 1 or 0.03, and at a gradient of 0."""

OFFSETS = (0, 1, -1, 2, -2)
"""In strides, along one line through the parameters and gradients of a case."""


class Rows(NamedTuple):
    """Of each case at each offset, side by side: parameters, gradients, and which steps count."""

    params: Float[np.ndarray, "rows 3 2"]
    grads: Float[np.ndarray, "rows steps 3 2"]
    counted: Float[np.ndarray, "rows steps"]


class Line(NamedTuple):
    """The direction of the offsets, in parameters and in gradients."""

    params: Float[np.ndarray, "3 2"]
    grads: Float[np.ndarray, "steps 3 2"]


def rows() -> tuple[Rows, Line, np.ndarray]:
    """The rows, their line, and the weights `[3, 2]` with which updates are summed."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (3, 2))

    def draw(*lead: int) -> np.ndarray:
        return rng.uniform(0.5, 1.5, (*lead, 3, 2)) * signs

    params, grads, weights, line = draw(), draw(STEPS), draw(), Line(draw(), draw(STEPS))
    half, every, first = np.array([0.0, 1.0]), np.ones(STEPS), np.eye(STEPS)[0]
    cases = [
        (params, grads, every),
        (params, grads * SMALL, every),
        (params, grads * SMALL, first),
        (params, grads * half, every),
        (params, grads * 0, every),
        (params * half, grads, every),
    ]
    each = [
        (p + offset * stride * line.params, g + offset * stride * line.grads, counted)
        for (p, g, counted), stride in zip(cases, STRIDES, strict=True)
        for offset in OFFSETS
    ]
    stacked = (np.stack(column).astype(np.float32) for column in zip(*each, strict=True))
    return Rows(*stacked), line, weights.astype(np.float32)
