"""What is read from the numbers: here they are made by hand."""

import numpy as np
import pytest

from jaxdl.meta.probe.cases import CASES, OFFSETS, STRIDES
from jaxdl.meta.probe.faults import faults, is_off, share
from jaxdl.meta.probe.slopes import Slopes


def made(function, along, by_grads=1.0):
    """Slopes of a function of the place on the line, and what reverse mode says of it."""
    places = np.multiply.outer(STRIDES, OFFSETS)
    ones = np.ones((len(CASES), 6))
    values = np.float32(function(places)).astype(float)
    return Slopes(values, 0 * ones, by_grads * ones, np.full(len(CASES), along))


@pytest.mark.parametrize(
    ("function", "along", "wrong"),
    [
        (lambda t: 1 + 2 * t, 2.0, False),
        (lambda t: 1 + 2 * t + 10 * t**3, 2.0, False),  # near and far differ; the slope does not
        (lambda t: 1 + 2 * t, 2.2, True),
        (lambda t: 1 + 2 * t, 0.0, True),
        (lambda t: np.abs(t - 0.01), 1.0, False),  # a kink on the line
        (lambda t: np.sign(t), 0.0, False),  # a jump
        (lambda t: 1 + 0 * t, 0.0, False),
        (lambda t: 1 + 6e-6 * t, 0.0, False),  # the last digit of float32
    ],
    ids=["line", "cubic", "off", "lost", "kink", "jump", "constant", "rounding"],
)
def test_reverse_mode_is_wrong_where_a_slope_shows_and_differs(function, along, wrong):
    assert is_off(made(function, along), "generic") == wrong


def test_the_share_of_gradient_descent_is_one_whatever_its_rate():
    """Six updates of -rate * 0.03 each, and derivatives of -rate."""
    for rate in (1e-6, 1.0):
        found = made(lambda t, rate=rate: -rate * 0.03 * 6 + 0 * t, 0.0, by_grads=-rate)
        np.testing.assert_allclose(share(found, "small"), 1, rtol=1e-6)


def test_without_steps_nothing_is_lost():
    assert share(made(lambda t: 0 * t, 0.0), "small") == np.inf


def test_each_kind_of_fault_is_said_once_and_the_worst_first():
    good = made(lambda t: -1 + 0 * t, 0.0)
    assert list(faults(good, steps=3, first_order=False)) == []
    bad = good.by_grads.copy()
    bad[CASES.index("flat")] = np.nan
    assert [text for text, _ in faults(good._replace(by_grads=bad), steps=3, first_order=True)] == [
        "The meta-gradient is NaN where the gradient of a task is exactly zero"
    ]
    bad[CASES.index("dead")] = np.inf
    assert [text for text, _ in faults(good._replace(by_grads=bad), steps=3, first_order=True)] == [
        "The meta-gradient is NaN where a gradient is exactly zero, as of a dead unit"
    ]
