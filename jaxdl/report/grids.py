"""The table and the heat map of a grid of hyper-parameters."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary


class Row(NamedTuple):
    """One run of a grid.

    `values`: its hyper-parameters. `found`: what each seed reached on validation; none if the run
    has not ended. `note`: what else there is to say, such as that it diverged.
    """

    values: Mapping[str, str]
    found: Sequence[float]
    directory: str
    note: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN if there is none."""
        return float(np.mean(self.found)) if len(self.found) else float("nan")


def best_of(rows: Sequence[Row], metric: str) -> int | None:
    """The number of the best row on validation, of "loss" the lowest; None if no run has ended.

    >>> rows = [Row({"lr": "1"}, [0.2, 0.4], "a"), Row({"lr": "2"}, [], "b")]
    >>> best_of(rows, "accuracy"), best_of(rows[1:], "accuracy")
    (0, None)
    """
    means = np.array([row.mean for row in rows]) * (-1 if metric == "loss" else 1)
    return None if np.isnan(means).all() else int(np.nanargmax(means))


def shown_as(metric: str) -> tuple[int, str]:
    """The factor by which a metric of validation is shown, and its title.

    >>> shown_as("accuracy"), shown_as("loss")
    ((100, 'validation accuracy in %'), (1, 'validation loss'))
    """
    scale = 100 if metric == "accuracy" else 1
    return scale, f"validation {metric}" + " in %" * (scale > 1)


def table(rows: Sequence[Row], metric: str) -> str:
    """A line per run; the best is marked."""
    best, (scale, unit) = best_of(rows, metric), shown_as(metric)
    digits, lines = 2 if scale > 1 else 3, []
    for n, row in enumerate(rows):
        shown = ["", ""]
        if len(row.found):
            found = seeds_summary(row.found)
            shown = [
                tables.interval(found, scale=scale, digits=digits),
                tables.by_seed(found, scale=scale, digits=digits),
            ]
        note = "best" if n == best else row.note
        lines.append([*row.values.values(), *shown, note, row.directory])
    return tables.markdown([*rows[0].values, unit, "by seed", "", "run"], lines)


def heat_map(
    axes: Mapping[str, Sequence[str]], means: Sequence[float], label: str, figure: Any
) -> None:
    """A cell per run: the last axis from left to right, all others from top to bottom.

    Args:
        means: in the order of the product of the axes, the last one fastest. NaN stays empty.
    """
    *others, last = axes
    rows = [" ".join(each) for each in itertools.product(*(axes[name] for name in others))]
    values = np.asarray(means, np.float64).reshape(len(rows), len(axes[last]))
    axis = figure.subplots()
    image = axis.imshow(np.ma.masked_invalid(values), cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(axes[last])), axes[last])
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlabel=last, ylabel=", ".join(others))
    for (row, column), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{value:.3g}"
        bright = bool(image.norm(value) > 0.6)
        axis.text(column, row, text, ha="center", va="center", color="k" if bright else "w")
    figure.colorbar(image, label=label)
