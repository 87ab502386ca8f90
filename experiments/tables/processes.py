"""The table of neural processes on curves, beside the exact posterior."""

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.reports._processes import cell
from experiments.reports.regression_1d import PUBLISHED
from experiments.tables.rows import TITLES
from experiments.tables.stored import learner_of, results_of
from experiments.tables.values import Cells

COLUMNS = {"rbf": "RBF", "matern": "Matern-5/2"}
"""The kinds of curves with their titles."""


def curves(table: str) -> Cells:
    """Log-likelihood per point of targets and of the context, the best on RBF first."""
    header = ["learner", "parameters"]
    for title in COLUMNS.values():
        header += [f"{title}, targets", "paper", "context"]
    yield [*header, "time"]

    def targets(name: str) -> float:
        return _mean(results[name]["scores"][learner_of(results[name])]["rbf"])

    results = results_of(table)
    for name in sorted(results, key=targets, reverse=True):
        result, learner = results[name], learner_of(results[name])
        published = PUBLISHED.get(learner, {})
        paper = {kernel: f"{value:.2f}" for kernel, value in published.items()}
        yield [
            TITLES.get(learner, learner),
            f"{result['parameters']:,}",
            *_cells(result["scores"][learner], paper),
            f"{result['run']['wall_seconds'] / 60:.0f} min",
        ]
    for result in list(results.values())[:1]:
        exact = {kernel: [of_tasks] for kernel, of_tasks in result["scores"]["gp"].items()}
        yield ["exact GP, ± over tasks", "", *_cells(exact, {}), ""]


def _cells(scores: dict[str, list[dict[str, Any]]], paper: dict[str, str]) -> Iterator[str]:
    for kernel in COLUMNS:
        seeds = scores[kernel]
        yield cell([each["log_likelihood"] for each in seeds])
        yield paper.get(kernel, "")
        yield cell([each["context"] for each in seeds])


def _mean(seeds: Sequence[dict[str, Any]]) -> float:
    return sum(float(each["log_likelihood"]["mean"]) for each in seeds) / len(seeds)
