"""The figure of docs/results.md: accuracy over minutes on Omniglot, from the stored curves."""

from typing import Any

import numpy as np

from experiments.tables.rows import TITLES
from experiments.tables.stored import DOCS, results_of
from jaxdl.errors import InputError
from jaxdl.files.atomic import write_text
from jaxdl.report import pictures

TABLE = "omniglot-5way-1shot"
FIGURE = DOCS / f"{TABLE}.svg"
VINYALS = "vinyals"
"""The split of the rows whose validation has other classes, and 15 queries. They are dashed."""


def draw(figure: Any) -> None:
    """A line per stored row: accuracy on validation episodes over the minutes of its run."""
    axis = figure.subplots()
    for name, result in by_last_accuracy():
        curve = result["curve"]
        style = "--" if result["config"]["split"] == VINYALS else "-"
        accuracy = 100 * np.asarray(curve["accuracy"])
        axis.plot(curve["minutes"], accuracy, style, marker=".", label=TITLES[name])
    axis.set_xlabel("minutes of the run, three seeds side by side")
    axis.set_ylabel("validation accuracy in %")
    axis.set_xlim(left=0)
    axis.set_ylim(top=100)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")


def by_last_accuracy() -> list[tuple[str, dict[str, Any]]]:
    """The rows that have a curve, the best last validation first."""
    found = [(name, row) for name, row in results_of(TABLE).items() if row.get("curve")]
    return sorted(found, key=lambda each: -each[1]["curve"]["accuracy"][-1])


def drawn() -> str:
    """The figure as the text of an SVG file, on white."""
    text = pictures.svg(draw, size=(8, 4.5), salt=TABLE)
    head, rest = text.split(">", 1)
    return f'{head} style="background: white">{rest}\n'


def write() -> None:
    """Writes the figure anew, or says that Matplotlib is missing."""
    try:
        write_text(FIGURE, drawn())
    except InputError as error:
        print(f"no {FIGURE.name}: {error}")
