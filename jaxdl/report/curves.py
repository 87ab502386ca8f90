"""Curves of what runs logged: a run by its splits, and several runs side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.report.pictures import band

MOST_POINTS = 500
"""Points of a curve on a page: more of them are not seen, and make the page large."""


def by_split(lines: Mapping[str, Mapping[str, np.ndarray]], figure: Any) -> None:
    """A panel per metric, up to three in a row, with a line per seed in the colour of its split.

    Args:
        lines: the metrics of each split, from `Run.metrics`: `step` `[lines]`, the others
            `[lines, seeds]`.
    """
    names = metrics_of(lines)
    axes = figure.subplots(-(-len(names) // 3), min(3, len(names)), squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    shown: dict[str, Any] = {}
    for axis, name in zip(axes, names, strict=False):
        for color, (split, found) in enumerate(lines.items()):
            if name not in found:
                continue
            steps, values, marker = _thinned(found, "step", name)
            drawn = axis.plot(steps, values, f"C{color}", marker=marker)
            shown.setdefault(split, drawn[0])
        axis.set_xlabel("step")
        axis.set_title(name, parse_math=False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    _legend(shown, figure)


def side_by_side(runs: Mapping[str, Mapping[str, np.ndarray]], figure: Any) -> None:
    """A row per metric, over steps and over minutes: the mean over seeds of each run, and a band.

    Args:
        runs: by name the lines of each run: `step` and, where it is known, `minutes` `[lines]`;
            the metrics `[lines, seeds]`.
    """
    names = metrics_of(runs)
    axes = figure.subplots(len(names), 2, squeeze=False)
    shown: dict[str, Any] = {}
    for row, name in zip(axes, names, strict=True):
        for axis, x in zip(row, ("step", "minutes"), strict=True):
            for color, (run, lines) in enumerate(runs.items()):
                if name in lines and x in lines:
                    at, values, marker = _thinned(lines, x, name)
                    band(axis, at, values, color, marker=marker)
                    shown.setdefault(run, axis.lines[-1])
            axis.set_xlabel("minutes of the run" if x == "minutes" else x)
            axis.set_ylabel(name, parse_math=False)
    _legend(shown, figure)


def _thinned(lines: Mapping[str, np.ndarray], x: str, name: str) -> tuple[Any, Any, str | None]:
    """x, the metric `[lines, seeds]`, and a marker for a single line; the last line is kept."""
    count = len(lines["step"])
    rows = np.unique(np.append(np.arange(0, count, -(-count // MOST_POINTS)), count - 1))
    at, values = lines[x][rows], lines[name][rows]
    return at, values.reshape(len(rows), -1), "." if count == 1 else None


def _legend(shown: Mapping[str, Any], figure: Any) -> None:
    """A legend below all panels, for lines by their names."""
    legend = figure.legend(shown.values(), shown, loc="outside lower center", ncols=3)
    for text in legend.texts:
        text.set_parse_math(False)


def metrics_of(lines: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """The names of the metrics that any split has."""
    names = dict.fromkeys(name for found in lines.values() for name in found)
    return [name for name in names if name not in ("step", "minutes")]
