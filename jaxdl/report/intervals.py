"""Means with 95 % intervals, from arrays of results.

Everything here runs on the host, in float64, on NumPy or JAX arrays.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from jaxdl.errors import InputError

Z95 = 1.959964
"""The 97.5 % quantile of the normal distribution."""


class Interval(NamedTuple):
    """A mean, its 95 % interval `[low, high]`, and what the interval is over.

    >>> import jaxdl
    >>> print(jaxdl.Interval(0.912, 0.908, 0.916, "600 episodes"))
    0.912 ± 0.004 (95 % over 600 episodes)
    """

    mean: float
    low: float
    high: float
    over: str

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        return f"{self.mean:.4g} ± {half:.2g} (95 % over {self.over})"


def over_episodes(values: ArrayLike) -> Interval:
    """The interval of a mean over episodes `[episodes]`, by `mean_ci95`."""
    return _interval(mean_ci95(np.ravel(_on_host(values))), _counted(np.size(values), "episode"))


def over_seeds(values: ArrayLike) -> Interval:
    """The interval of a mean over seeds `[seeds]` by Student's t, by `seeds_mean_ci95`."""
    return _interval(seeds_mean_ci95(np.ravel(_on_host(values))), _counted(np.size(values), "seed"))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _interval(mean_and_half: tuple[Any, Any], over: str) -> Interval:
    mean, half = map(float, mean_and_half)
    return Interval(mean, mean - half, mean + half, over)


def mean_ci95(values: ArrayLike, *, axis: int = 0) -> tuple[Any, Any]:
    """The mean over episodes and the half width of its 95 % interval, 1.96 s / sqrt(n).

    `values` holds one number per episode along `axis`. s is their standard deviation with n - 1 in
    the denominator. Returns two float64: scalars for a vector, else arrays without `axis`. The half
    width of a single episode is NaN, because one number has no spread. Diverged episodes (NaN,
    infinity) show in the mean, and give a half width of NaN.

    Raises:
        InputError: if there is no episode.
    """
    mean, error, _ = _mean_and_standard_error(values, axis)
    return mean, Z95 * error


def seeds_mean_ci95(values: ArrayLike, *, axis: int = 0) -> tuple[Any, Any]:
    """The mean over seeds and the half width of its 95 % interval by Student's t, t s / sqrt(n).

    It is `mean_ci95` for few numbers: with 3 seeds, t is 4.30 and not 1.96. The interval is for
    training again with other seeds, not for other test episodes.
    """
    from scipy.special import stdtrit  # only here, because of its import time

    mean, error, n = _mean_and_standard_error(values, axis)
    return mean, (stdtrit(n - 1, 0.975) if n > 1 else np.nan) * error


def summary(values: ArrayLike) -> dict[str, float | int | None]:
    """Statistics of one number per episode `[episodes]`, ready for JSON.

    They are `mean`, `ci95` (half width; None for a single episode), `median` and `episodes`.
    """
    mean, half_width = mean_ci95(np.ravel(_on_host(values)))
    return {
        "mean": float(mean),
        "ci95": None if np.size(values) == 1 else float(half_width),
        "median": float(np.median(_on_host(values))),
        "episodes": int(np.size(values)),
    }


def seeds_summary(values: ArrayLike) -> dict[str, float | int | list[float] | None]:
    """Statistics of one number per seed `[seeds]`, ready for JSON.

    They are `mean`, `ci95` (half width by Student's t; None for a single seed), `seeds` and the
    `values`.
    """
    values = np.ravel(_on_host(values))
    mean, half_width = seeds_mean_ci95(values)
    return {
        "mean": float(mean),
        "ci95": None if values.size == 1 else float(half_width),
        "seeds": int(values.size),
        "values": values.tolist(),
    }


def _on_host(values: ArrayLike) -> Float64[np.ndarray, "..."]:
    return np.asarray(values).astype(np.float64)


def _mean_and_standard_error(values: ArrayLike, axis: int) -> tuple[Any, Any, int]:
    values = _on_host(values)
    n = values.shape[axis] if values.ndim else 0
    if n == 0:
        raise InputError(
            f"there are no values along axis {axis} of {values.shape}. Give at least one"
        )
    with np.errstate(all="ignore"):  # infinity minus infinity must give NaN, without a warning
        mean = values.mean(axis)
        if n == 1:
            return mean, np.full_like(mean, np.nan)[()], n
        return mean, values.std(axis, ddof=1) / np.sqrt(n), n
