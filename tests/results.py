"""The stored results of the few-shot learners, and their tables in docs/results.md.

    .venv/bin/python -m tests.results                            writes the tables
    .venv/bin/python -m tests.results store TABLE ROW RUN        stores the result of a run as a row

`results/TABLE/ROW.json` is the result.json of a run, without the folders of the machine that made
it. `test_results.py` writes the tables again and compares.
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.reports.few_shot import METHODS, PAPER, PROTONET
from jaxdl.report.intervals import seeds_mean_ci95
from jaxdl.report.tables import markdown
from tests.project import ROOT

RESULTS, DOCUMENT = ROOT / "results", ROOT / "docs" / "results.md"
NAMES = METHODS | {"fomaml": "first-order MAML", "linear_probe": "linear probe"}
DIVERGED = 100.0
"""A mean squared error above this, or one that is not finite, is no error of a fit."""


class Paper(NamedTuple):
    """What a paper has for a row, and the steps of its recipe."""

    figure: str
    steps: int = 0


OMNIGLOT = {
    "maml": Paper(PAPER["omniglot", 5, 1], 60_000),
    "fomaml": Paper("98.3 (Reptile's paper)", 60_000),
    "anil": Paper("none for 5-way"),
    "reptile": Paper("97.7", 100_000),
    "protonet": Paper(PROTONET["omniglot", 5, 1]),
    "r2d2": Paper("98.9 (recalled)"),
    "rfs": Paper("none"),
}


def rows_of(table: str) -> dict[str, dict[str, Any]]:
    """The stored results of a table, by the name of the row."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in (RESULTS / table).glob("*")}


def over_seeds(values: Sequence[float], form: str) -> str:
    """The mean with its interval over seeds, or a single seed without one."""
    mean, half = seeds_mean_ci95(np.asarray(values, np.float64))
    if len(values) == 1:
        return f"{mean:{form}} (1 seed)"
    return f"{mean:{form}} ± {half:{form}}"


def learner_of(row: str) -> str:
    """The learner of a row: first-order MAML is MAML with an estimator."""
    return "maml" if row == "fomaml" else row


def accuracies(found: list[dict[str, float]]) -> list[float]:
    return [100 * seed["accuracy"] for seed in found]


def numbers() -> Iterator[list[str]]:
    """Accuracy on pairs of digits, the best first."""
    yield ["learner", "mean, ± over seeds", "over episodes", "untrained", "time"]
    rows = rows_of("numbers-5way-1shot")
    for name in sorted(rows, key=lambda name: -float(np.mean(own(rows[name], name)))):
        row = rows[name]
        episodes = np.mean([100 * seed["ci95"] for seed in row[learner_of(name)]])
        yield [
            NAMES[name],
            over_seeds(own(row, name), ".1f"),
            f"± {episodes:.1f}",
            f"{np.mean(accuracies(row['untrained'])):.1f}",
            f"{row['run']['wall_seconds']:.0f} s",
        ]


def own(row: dict[str, Any], name: str) -> list[float]:
    """The accuracy of each seed."""
    return accuracies(row[learner_of(name)])


def omniglot() -> Iterator[list[str]]:
    """Accuracy on Omniglot beside the papers', the best first."""
    figures = ("mean, ± over seeds", "over episodes", "untrained", "paper")
    yield ["learner", "steps", "of the recipe", *figures]
    rows = rows_of("omniglot-5way-1shot")
    for name in sorted(rows, key=lambda name: -float(np.mean(own(rows[name], name)))):
        row, paper = rows[name], OMNIGLOT[name]
        steps = row["run"]["steps"]
        episodes = np.mean([100 * seed["ci95"] for seed in row[learner_of(name)]])
        yield [
            NAMES[name],
            f"{steps:,}",
            f"{100 * steps / paper.steps:.0f} %" if paper.steps else "",
            over_seeds(own(row, name), ".2f"),
            f"± {episodes:.2f}",
            f"{np.mean(accuracies(row['untrained'])):.1f}",
            paper.figure,
        ]


def sines() -> Iterator[list[str]]:
    """Mean squared error on sine waves, by shots and steps of the test; the best first."""
    columns = [(shots, steps) for steps in (1, 10) for shots in (5, 10)]
    yield [
        "learner",
        "steps in training",
        *(f"{shots}-shot, {steps} step{'s' * (steps > 1)}" for shots, steps in columns),
        "time",
    ]
    rows = rows_of("sine-waves")

    def errors(name: str, shots: int, steps: int) -> list[float]:
        return [float(seed[f"{shots}-shot/{steps}"]["mean"]) for seed in rows[name][name]]

    def shown(values: list[float]) -> str:
        mean = np.mean(values)
        return over_seeds(values, ".3f") if mean < DIVERGED else "diverges"

    for name in sorted(rows, key=lambda name: float(np.mean(errors(name, 10, 1)))):
        row = rows[name]
        trained = row["config"].get("inner_steps")
        yield [
            NAMES[name],
            "none" if trained is None else str(trained),
            *(shown(errors(name, *column)) for column in columns),
            f"{row['run']['wall_seconds']:.0f} s",
        ]


TABLES = {"numbers-5way-1shot": numbers, "omniglot-5way-1shot": omniglot, "sine-waves": sines}


def written(document: str) -> str:
    """The document with each table between its marks written anew."""
    for name, table in TABLES.items():
        mark = re.compile(rf"(<!-- results/{name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        header, *rows = table()
        text = markdown(header, rows)
        document, count = mark.subn(lambda found, text=text: found[1] + text + found[2], document)
        assert count == 1, f"{name} has {count} places in {DOCUMENT.name}"
    return document


def stored(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the folders of the machine that made it."""
    run = {name: value for name, value in result["run"].items() if name != "directory"}
    run["command"] = re.sub(r" --(runs-dir|data-dir|name) \S+", "", run["command"])
    config = {name: value for name, value in result["config"].items() if name != "run"}
    assert all(value is None for name, value in config.items() if name.endswith(("_dir", "path")))
    return {**result, "config": config, "run": run}


def store(table: str, row: str, run: str) -> None:
    """Stores the result of a run."""
    result = stored(json.loads((Path(run) / "result.json").read_text("utf-8")))
    assert math.isfinite(result["run"]["wall_seconds"])
    path = RESULTS / table / f"{row}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["store"]:
        store(*sys.argv[2:])
    else:
        DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8")), "utf-8")
