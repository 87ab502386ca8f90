"""Report and pictures of the experiment `tabular`."""

from typing import Any

import numpy as np

from jaxdl.recipes.table_baselines import BASELINES
from jaxdl.report import tables
from jaxdl.report.intervals import mean_ci95
from jaxdl.report.pictures import band
from jaxdl.runs.run import Run

METHODS = {"tabular": "in context"} | BASELINES
METRICS = {"auc": "ROC AUC", "accuracy": "accuracy"}


def scores_table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows: for each metric and method a column per table, and the mean over tables.

    ± is over splits. That of the learner with several seeds is over splits, too, of the mean over
    seeds.
    """
    names = list(result["scores"])
    found = [["± 95 % over splits", *names, "mean"]]
    for metric, title in METRICS.items():
        for method, called in METHODS.items():
            if method not in result["scores"][names[0]]:
                continue
            by_table = [of_splits(result, name, method, metric) for name in names]
            cells = [_cell(values) for values in by_table]
            found.append([f"{title}, {called}", *cells, _cell(np.mean(by_table, axis=0))])
    return found


def of_splits(result: dict[str, Any], name: str, method: str, metric: str) -> Any:
    """A metric of each split, of the mean over seeds."""
    return np.mean(np.asarray(result["scores"][name][method][metric], float), axis=0)


def _cell(values: Any) -> str:
    mean, half = mean_ci95(values)
    return tables.interval({"mean": mean, "ci95": half}, digits=3)


def report(result: dict[str, Any]) -> str:
    """The result as a table, and how it was made."""
    run, config = result["run"], result["config"]
    header, *rows = scores_table(result)
    synthetic = np.mean(result["synthetic"]["accuracy"]), np.mean(result["synthetic"]["loss"])
    notes = [
        f"trained on synthetic tables alone for {run['steps']:,} steps of"
        f" {config['tasks'] * config['sizes']}; seeds: {config['seeds']}, from {config['seed']};"
        f" {result['parameters']:,} parameters; no batch norm",
        f"each real table: {config['splits']} splits of {result['rows'][0]} rows to learn from and"
        f" {result['rows'][1]} to classify, {config['features']} random columns at most; nothing"
        " was tuned on them",
        f"synthetic tables of validation: accuracy {synthetic[0]:.3f}, loss {synthetic[1]:.3f}",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown(header, rows), *notes])


def draw_curve(run: Run, figure: Any) -> None:
    """The loss by step, of training and of validation."""
    axis = figure.subplots()
    for color, split in enumerate(("train", "validation")):
        lines = run.metrics(split)
        if "loss" in lines:
            band(axis, lines["step"], lines["loss"], color, label=split)
    axis.set(xlabel="step", ylabel="loss, nats per row")
    axis.legend()
