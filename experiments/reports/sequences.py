"""Report and pictures of the experiment `sequences`."""

from typing import Any

import jax
import numpy as np

from experiments.reports._cells import curve, draw_answers, notes, table
from jaxdl.runs.run import Run
from jaxdl.types import Array


def report(result: dict[str, Any]) -> str:
    """One row per cell, then settings, seeds, data and machine."""
    task = result["config"]["task"]
    return "\n".join([table(result, task, "accuracy", "accuracy in %"), *notes(result)])


def draw_curve(run: Run, result: dict[str, Any], figure: Any) -> None:
    """The validation error of the cells by step."""
    curve(run, result, figure, error=True, name="error in %")


def draw_sample(x: Array, target: np.ndarray, answers: dict[str, Array], figure: Any) -> None:
    """One test image, and the probability that each cell gives its digit after each row."""
    left, right = figure.subplots(1, 2)
    left.imshow(x, cmap="gray_r")
    left.set(title=f"a {target}, read from the top", ylabel="row", xticks=[])
    right.set(ylabel=f"probability of {target}")
    shown = {cell: jax.nn.softmax(each)[:, target] for cell, each in answers.items()}
    draw_answers(right, shown, "row")
