"""What is stored of a row: `results/TABLE/ROW.json`, and the weights of its first seed."""

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tables.rows import TABLES
from jaxdl.errors import RunError, damaged
from jaxdl.files.atomic import read_json, write_text
from jaxdl.recipes.side_by_side import timed_lines
from jaxdl.runs.weights import export_weights

ROOT = Path(__file__).resolve().parents[2]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
MOST_BYTES = 1_000_000
"""Of a file of weights."""


class Place(NamedTuple):
    """The files of a row."""

    result: Path
    weights: Path


def place(table: str, row: str) -> Place:
    folder = RESULTS / table
    return Place(folder / f"{row}.json", folder / f"{row}.npz")


def result_of(table: str, row: str) -> dict[str, Any] | None:
    """The stored result of a row, or None if there is none.

    Raises:
        RunError: if the file is damaged.
    """
    path = place(table, row).result
    return read_json(path) if path.exists() else None


def results_of(table: str) -> dict[str, dict[str, Any]]:
    """The stored results of a table by row, in the order of the table."""
    found = {row.name: result_of(table, row.name) for row in TABLES[table].rows}
    return {name: result for name, result in found.items() if result is not None}


def without_places(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the folders of the machine that made it."""
    run = {name: value for name, value in result["run"].items() if name != "directory"}
    run["command"] = re.sub(r" --(runs-dir|data-dir|name) \S+", "", run["command"])
    config = {name: value for name, value in result["config"].items() if name != "run"}
    named = [key for key in config if key.endswith(("_dir", "path")) and config[key] is not None]
    return {**result, "config": {**config, **dict.fromkeys(named)}, "run": run}


def store(table: str, row: str, directory: Path) -> None:
    """Stores the result of a finished run as a row, and the weights of its first seed where the
    table keeps them and they are small enough.

    Raises:
        RunError: if the run is not finished, or is damaged, or a file cannot be written.
    """
    path = directory / "result.json"
    if not path.exists():
        raise RunError(f"{directory} is not finished. Let the run finish before it is stored")
    result = without_places(read_json(path)) | {"curve": curve_of(directory)}
    if not math.isfinite(result["run"]["wall_seconds"]):
        raise damaged(path, "its wall time is not finite", "Run it again")
    to = place(table, row)
    to.result.parent.mkdir(parents=True, exist_ok=True)
    if TABLES[table].keeps_weights:
        export_weights(directory, to.weights)
        if to.weights.stat().st_size > MOST_BYTES:
            to.weights.unlink()
    write_text(to.result, json.dumps(result, indent=1) + "\n")


def curve_of(directory: Path) -> dict[str, list[Any]]:
    """The validations of a run: `step`, `minutes` with all seeds side by side, and each metric as
    the mean of the seeds. Empty if there are none."""
    lines = timed_lines(directory, "validation")
    return {name: (v.mean(axis=1) if v.ndim > 1 else v).tolist() for name, v in lines.items()}


def learner_of(result: dict[str, Any]) -> str:
    """The name of a row's learner in its result. First-order MAML is MAML with an estimator."""
    return str(result["config"].get("learner", "tabular"))
