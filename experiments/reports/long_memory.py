"""Report and pictures of the experiment `long_memory`."""

from typing import Any

import numpy as np

from experiments.reports._cells import curve, draw_answers, notes, table
from jaxdl.runs.run import Run
from jaxdl.types import Array


def report(result: dict[str, Any]) -> str:
    """One row per cell, then settings, seeds, data and machine."""
    config = result["config"]
    adding = config["task"] == "adding"
    title = f"{config['task']} {config['length']}"
    metric, what = ("loss", "error") if adding else ("accuracy", "accuracy in %")
    return "\n".join([table(result, title, metric, what), *notes(result)])


def draw_curve(run: Run, result: dict[str, Any], figure: Any) -> None:
    """The validation loss of the cells by step."""
    names = {"adding": "squared error", "copy": "cross-entropy in nats"}
    curve(run, result, figure, error=False, name=names[result["config"]["task"]])


def draw_sample(
    task: str, x: Array, target: np.ndarray, answers: dict[str, Array], figure: Any
) -> None:
    """One test sequence, and the output of each cell's first seed after each step."""
    if task == "copy":
        shown = {"target": target}
        shown |= {cell: np.asarray(each).argmax(1) for cell, each in answers.items()}
        axes = figure.subplots(len(shown), sharex=True)
        for axis, (name, row) in zip(axes, shown.items(), strict=True):
            axis.imshow(row[None], aspect="auto", cmap="tab10", vmin=0, vmax=9)
            axis.set(yticks=[], ylabel=name)
        axis.set_xlabel("step; the symbols are repeated at the end")
        return
    left, right = figure.subplots(1, 2)
    numbers, marks = np.asarray(x).T
    left.plot(numbers, ".", color="0.7")
    left.plot(np.flatnonzero(marks), numbers[marks > 0], "k^", label="marked")
    left.set(xlabel="step", ylabel="number", title=f"sum of the marked: {target[0]:.3f}")
    left.legend()
    right.axhline(target[0], color="0.5", ls="--")
    right.set(ylabel="answer so far")
    draw_answers(right, answers, "step")
