"""report.html: what a finished run found, as one file that people open and send."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.files.atomic import write_text
from jaxdl.report import curves, pictures, tables
from jaxdl.report.page import page
from jaxdl.runs.identity import recorded_config
from jaxdl.runs.journal import Journal
from jaxdl.runs.progress import say

NAME = "report.html"
NOT_FINITE = ("nan", "inf", "-inf")


def write_page(directory: Path, report: str, result: Mapping[str, Any]) -> None:
    """Writes report.html into the directory of a finished run, from what lies there.

    The result is stored already. So where the page cannot be written, a sentence says so, and the
    run ends well.

    Args:
        report: the text that the experiment prints.
        result: the content of result.json.
    """
    if not parallel.is_first():
        return
    title = f"{directory.parent.name}: {directory.name}"
    try:
        drawn, missing = _curves(directory)
        text = page(
            title,
            "\n".join([report, *missing]),
            curves=drawn,
            pictures={path.stem: path.read_bytes() for path in sorted(directory.glob("*.png"))},
            settings={"Configuration": recorded_config(directory), "Run": result["run"]},
        )
        write_text(directory / NAME, text)
    except Exception as error:  # whatever a log or a picture holds, the training is done
        say(f"no {NAME}: {error}")


def numbers(result: Mapping[str, Any]) -> str:
    """The numbers of a result as a table, those of several seeds side by side.

    result.json has numbers that are not finite as text.

    >>> print(numbers({"loss": 0.25, "accuracy": [0.5, "nan"], "method": "mine", "run": {}}))
    | result   |   value |
    | :------- | ------: |
    | loss     |    0.25 |
    | accuracy | 0.5 nan |
    """
    rows = []
    for name, value in result.items():
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(each, int | float) or each in NOT_FINITE for each in values):
            rows.append([name, " ".join(f"{float(each):.5g}" for each in values)])
    return tables.markdown(["result", "value"], rows) if rows else ""


def _curves(directory: Path) -> tuple[dict[str, str], list[str]]:
    """The curves of the run and of the trainings inside it, by heading; and why there are none."""
    found: dict[str, str] = {}
    for path in sorted(directory.rglob("metrics.jsonl"), key=lambda path: (len(path.parts), path)):
        part, journal = path.parent.relative_to(directory), Journal(path.parent)
        lines = {split: journal.read(split) for split in journal.splits()}
        if not (names := curves.metrics_of(lines)):
            continue
        heading = "Training" if path.parent == directory else f"Training: {part}"
        size = (3.6 * min(3, len(names)), 2.7 * -(-len(names) // 3))
        try:
            found[heading] = pictures.svg(partial(curves.by_split, lines), size=size, salt=heading)
        except InputError as error:
            return {}, [f"no curves: {error}"]
    return found, []
