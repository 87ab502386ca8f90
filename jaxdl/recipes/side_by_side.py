"""The curves of several runs on one page, over steps and over time."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from jaxdl.errors import content_of
from jaxdl.files.atomic import write_text
from jaxdl.report import curves, pictures
from jaxdl.report.page import page
from jaxdl.runs.journal import Journal
from jaxdl.runs.supervise import SECONDS

Lines = Mapping[str, np.ndarray]


def write_side_by_side(path: Path, runs: Mapping[str, Path], report: str) -> None:
    """Writes a page with `report`, and with the curves of runs by their names.

    Raises:
        InputError: if Matplotlib is missing.
        RunError: if the page cannot be written.
    """
    drawn = {}
    for split in ("train", "validation"):
        found = {name: timed_lines(run, split) for name, run in runs.items()}
        found = {name: lines for name, lines in found.items() if lines}
        if not found:
            continue
        rows = len(curves.metrics_of(found))
        draw = partial(curves.side_by_side, found)
        title = "Training tasks" if split == "train" else "Validation tasks"
        drawn[title] = pictures.svg(draw, size=(9, 2.8 * rows), salt=split)
    write_text(path, page("Runs side by side", report, curves=drawn, pictures={}, settings={}))


def timed_lines(run: Path, split: str) -> dict[str, np.ndarray]:
    """The metrics of a run `[lines, seeds]`, with `step` and, where it was noted, `minutes`.

    The minutes are those since the run began, its data and validations included, without the
    compilation of the step.
    """
    lines = Journal(run).read(split)
    times = Journal(run, name=SECONDS).read("train")
    if lines and times:
        with content_of(run / SECONDS, "Put the file back, or move it away"):
            taken = (times["seconds"] - times["compile_seconds"]) / 60
        # A run that began before times were noted has none of its first lines: they are not drawn.
        known = {"left": np.nan, "right": np.nan}
        lines["minutes"] = np.interp(lines["step"], times["step"], taken, **known)
    return lines
