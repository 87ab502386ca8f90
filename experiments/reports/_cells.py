"""Tables and pictures that the experiments with several cells share."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.pictures import band
from jaxdl.runs.run import Run


def table(result: dict[str, Any], title: str, metric: str, what: str) -> str:
    """One row per cell: mean and values by seed of the `metric`, the loss, and the step of success.

    The accuracy is in percent.
    """
    shown = {"scale": 100, "digits": 2} if metric == "accuracy" else {"scale": 1, "digits": 5}
    rows = []
    for cell, found in result["cells"].items():
        solved = " ".join("never" if at is None else f"{at:,}" for at in found["solved_at"])
        mean, each = (f(found[metric], **shown) for f in (tables.interval, tables.by_seed))
        loss = tables.number(float(found["loss"]["mean"]), 5)
        rows.append([cell, mean, each, loss, solved])
    header = [f"{title}, test", f"{what}, ± 95 % over seeds", "by seed", "loss", "solved at step"]
    return tables.markdown(header, rows)


def notes(result: dict[str, Any]) -> list[str]:
    """The lines below the table: settings, seeds, data and machine."""
    config, run = result["config"], result["run"]
    return [
        f"{run['steps']:,} steps of {config['batch']} sequences, {config['hidden']} units,"
        f" {config['layers']} layer(s); {tables.seeds(config['seed'], config['seeds'])};"
        f" {result['test_sequences']:,} test sequences, the last parameters, no batch norm",
        f"solved: validation loss below a tenth of {result['baseline']:.4f}, the loss without"
        f" memory; validated every {config['eval_every']} steps",
        tables.made_by(run),
    ]


def curve(run: Run, result: dict[str, Any], figure: Any, *, error: bool, name: str) -> None:
    """The validation of the cells by step: the mean over seeds, and their range as a band.

    With `error`, the value is 100 minus the accuracy in percent. Without it, it is the loss, and
    the baseline is drawn, too.
    """
    axis = figure.subplots()
    for color, cell in enumerate(result["cells"]):
        lines = run.part(cell).metrics("validation")
        values = 100 - 100 * lines["accuracy"] if error else lines["loss"]
        style = {"label": cell.upper(), "marker": "o", "markersize": 3}
        band(axis, lines["step"], values, color, **style)
    if not error:
        axis.axhline(result["baseline"], color="0.5", ls="--", label="without memory")
    axis.set(xlabel="step", ylabel=f"validation {name}", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend()


def draw_answers(axis: Any, answers: dict[str, Any], xlabel: str) -> None:
    """One line per cell: its output after each step."""
    for cell, answer in answers.items():
        axis.plot(np.asarray(answer), label=cell.upper())
    axis.set(xlabel=xlabel)
    axis.legend()
