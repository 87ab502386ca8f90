"""Values of a result by seed, and as the text of a cell."""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxdl.report.intervals import seeds_mean_ci95

Cells = Iterator[list[str]]
"""A table: the titles of its columns, then its rows."""


def over_seeds(values: Sequence[float] | np.ndarray, form: str, sign: str = "") -> str:
    """The mean with its interval over seeds, or a single seed without one.

    >>> over_seeds([97.123], ".1f"), over_seeds([1.0, 2.0, 3.0], ".2f")
    ('97.1 (1 seed)', '2.00 ± 2.48')
    >>> over_seeds([1.0, 2.0, 3.0], ".1f", sign="+")
    '+2.0 ± 2.5'
    """
    mean, half = seeds_mean_ci95(np.asarray(values, np.float64))
    if len(values) == 1:
        return f"{mean:{sign}{form}} (1 seed)"
    return f"{mean:{sign}{form}} ± {half:{form}}"


def accuracies(seeds: Sequence[dict[str, float]]) -> list[float]:
    """The accuracy of each seed in percent."""
    return [100 * seed["accuracy"] for seed in seeds]


def over_episodes(seeds: Sequence[dict[str, float]]) -> float:
    """Half the interval over episodes in percent, the mean of the seeds."""
    return float(np.mean([100 * seed["ci95"] for seed in seeds]))
