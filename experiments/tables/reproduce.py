"""The command of `scripts/reproduce`: lists the rows of the tables, runs them, checks them."""

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from experiments.tables import document
from experiments.tables.measures import MEASURES, headline, numbers
from experiments.tables.retest import retest
from experiments.tables.rows import TABLES, TITLES, Experiment, Row, Table
from experiments.tables.stored import learner_of, place, result_of, store
from experiments.tables.values import over_episodes
from jaxdl.errors import InputError, RunError
from jaxdl.report import tables
from jaxdl.runs import cli
from jaxdl.runs.config import Range, check

AGREE: dict[Experiment, float] = {"few_shot": 0.1, "sinusoid": 0.001, "tabular": 0.001}
"""How far a number may be from the stored one on other versions or devices: 0.1 points."""
STOPPED = (130, 143)
"""The exit codes of a run that Ctrl-C or SIGTERM has stopped."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Run the rows of the tables in docs/results.md. Without arguments, list them.

    A row that stops before its end goes on when the same command comes again."""

    names: tuple[str, ...]
    """Nothing, to list all rows; or a table, whose missing rows are run, the most important first;
    or a table and one of its rows."""
    budget: Annotated[float, Range(0, 1e6, above=True)] | None = None
    """Minutes after which the training stops. It can go on later."""
    again: bool = False
    """Train a row anew that is stored. The folder of its finished run gets another name."""
    check: bool = False
    """Test the stored weights again, of one row or of all, and compare."""
    data_dir: Path | None = None
    """Folder of prepared data. None: the variable JAXDL_DATA, or else the user's cache."""


def main(arguments: Arguments) -> None:
    """Lists, runs or checks.

    Raises:
        InputError: if there is no such table or row.
        RunError: if a run ends with an error, or a check finds another number.
    """
    check(arguments)
    if arguments.again and len(arguments.names) != 2:
        raise InputError("--again trains one row anew. Name a table and a row")
    if arguments.check:
        check_rows(arguments)
    elif arguments.names:
        run_rows(arguments)
    else:
        print(listing())


def chosen(names: Sequence[str]) -> tuple[str, Table, list[Row]]:
    """The name of a table, the table, and all of its rows or the one that is named.

    Raises:
        InputError: if there is none.
    """
    name, *rows = names
    if name not in TABLES:
        raise InputError(f"there is no table {name!r}. Choose one of {' '.join(TABLES)}")
    if len(rows) > 1:
        raise InputError(f"{' '.join(names)} are too many names. Give a table and one row")
    table = TABLES[name]
    return name, table, list(map(table.row, rows)) or list(table.rows)


# ---- the list


def listing() -> str:
    """All rows: what the paper has, what is stored, and the minutes of a run."""
    parts = []
    for name, table in TABLES.items():
        seeds = "± over seeds, where there are several"
        runs_on = "" if table.device == "CPU" else f", for a {table.device}"
        parts.append(f"{name}{runs_on}: {MEASURES[table.experiment].unit}, {seeds}")
        cells = [listed(name, table, row) for row in table.rows]
        header = ["row", "paper", "ours", "steps", "of the recipe", "minutes"]
        parts.append(tables.markdown(header, cells) + "\n")
    return "\n".join(
        [
            *parts,
            "Minutes of a missing row are an estimate for 2 CPU cores, those of a stored row its"
            " run's.",
            "scripts/reproduce TABLE [ROW] [--budget MINUTES] runs what is missing.",
        ]
    )


def listed(name: str, table: Table, row: Row) -> list[str]:
    """The cells of a row in the list."""
    found = result_of(name, row.name)
    steps = table.configuration(row).steps if found is None else found["run"]["steps"]
    minutes = row.minutes if found is None else found["run"]["wall_seconds"] / 60
    return [
        row.name,
        row.paper,
        "missing" if found is None else told(name, row.name, found),
        f"{steps:,}" if steps else "all",
        f"{100 * steps / row.recipe:.0f} %" if row.recipe else "",
        f"{minutes:,.0f}" if found else f"about {minutes:,.0f}",
    ]


def told(table: str, row: str, result: dict[str, Any]) -> str:
    """The numbers of a stored row in a line."""
    return headline(TABLES[table].experiment, result, learner_of(result))


def record(table: str, row: Row, result: dict[str, Any]) -> str:
    """All that is known of a stored row, a line each."""
    config, run = result["config"], result["run"]
    lines = {
        "learner" if "learner" in config else "row": TITLES.get(row.name)
        or TITLES.get(config.get("learner", ""), row.name),
        "measure": MEASURES[TABLES[table].experiment].unit,
        "ours, ± over seeds": told(table, row.name, result),
        "paper": row.paper or "none",
        "batch norm": result.get("batch_norm", ""),
        "split": result.get("split", ""),
        "seeds": f"{config['seeds']}, the first is {config['seed']}",
        "steps": f"{run['steps']:,}" + (f" of {row.recipe:,}" if row.recipe else ""),
        "command": f"scripts/run {run['command'].replace('.py', '', 1)}",
        "wall time": f"{run['wall_seconds']:,.0f} s on {run['device']}, {run['machine']}",
        "versions": ", ".join(f"{name} {number}" for name, number in run["packages"].items()),
    }
    if TABLES[table].experiment == "few_shot":
        trained, tested = config.get("inner_steps"), config["test_inner_steps"]
        lines["queries per class"] = (
            f"{config['queries']} in training, {config['test_queries']} in the test"
        )
        if trained is not None:
            tested = trained if tested is None else tested
            lines["inner steps"] = f"{trained} in training, {tested} in the test"
        own = result[learner_of(result)]
        half, episodes = over_episodes(own), config["test_episodes"]
        lines["± over test episodes"] = f"{half:.2f} over {episodes:,}"
    if "parameters" in result:
        lines["parameters"] = f"{result['parameters']:,}"
    if run.get("peak_bytes"):
        lines["peak memory"] = f"{run['peak_bytes'] / 1e6:,.0f} MB"
    width = max(map(len, lines))
    shown = [f"{name:{width}}  {value}" for name, value in lines.items() if value]
    if "deviations" not in result:  # of a run that compares methods: its report tells the rest
        shown += ["", document.report_of(table, row.name, result)]
    deviations = result.get("deviations", [])
    return "\n".join([*shown, *(f"{'deviation':{width}}  {each}" for each in deviations)])


# ---- runs


def run_rows(arguments: Arguments) -> None:
    """Runs the rows that are missing and writes the tables; stops when the budget is spent."""
    name, table, rows = chosen(arguments.names)
    end = None if arguments.budget is None else time.monotonic() + 60 * arguments.budget
    for row in rows:
        if arguments.again or result_of(name, row.name) is None:
            if arguments.again:
                put_aside(directory_of(name, table, row))
            directory = run_row(name, table, row, end, arguments.data_dir)
            if directory is None:
                print(f"{name} {row.name} is stopped before its end. The same command goes on")
                return
            store(name, row.name, directory)
            document.write()
        stored = result_of(name, row.name)
        assert stored is not None
        print(f"{name} {row.name}: {told(name, row.name, stored)}")
    if len(rows) == 1 and stored is not None:
        print(record(name, row, stored))


def run_row(
    name: str, table: Table, row: Row, end: float | None, data_dir: Path | None
) -> Path | None:
    """Runs a row of a table, or resumes it; its directory, or None if it was stopped.

    Raises:
        RunError: if the run ended with an error, whose sentence stands above.
    """
    directory = directory_of(name, table, row)
    runs = directory.parent.parent
    words = [*table.arguments(row), "--name", directory.name, "--runs-dir", str(runs)]
    words += [] if data_dir is None else ["--data-dir", str(data_dir)]
    with started(
        [sys.executable, "-P", "-m", f"experiments.{table.experiment}", *words]
    ) as process:
        try:
            code = process.wait(None if end is None else max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait()
    if code in STOPPED:
        return None
    if code:
        raise RunError(f"{name} {row.name} ended with exit code {code}. See the message above")
    return directory


def directory_of(name: str, table: Table, row: Row) -> Path:
    """The directory of the run of a row."""
    runs = Path(os.environ.get("JAXDL_RUNS", "runs")).resolve() / "reproduce"
    return runs / table.experiment / f"{name}.{row.name}"


def put_aside(directory: Path) -> None:
    """Gives a finished run another name, because its command would only print its result.

    A run that was stopped goes on.
    """
    if (directory / "result.json").exists():
        places = (directory.with_name(f"{directory.name}.{n}") for n in itertools.count(1))
        directory.rename(next(place for place in places if not place.exists()))


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that gets our Ctrl-C from the terminal itself, and SIGTERM from us."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    passed_on = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield process
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, passed_on)


# ---- checks


def check_rows(arguments: Arguments) -> None:
    """Tests stored weights again.

    Raises:
        InputError: if there is no such table or row, or no weights are stored.
        RunError: if a number is another one.
    """
    cells, failed = [], []
    for names in [arguments.names] if arguments.names else [(name,) for name in TABLES]:
        name, table, rows = chosen(names)
        for row in rows:
            if not place(name, row.name).weights.exists():
                continue
            old, new, holds = check_row(name, table, row, arguments.data_dir)
            shown = (", ".join(f"{value:.6f}" for value in values) for values in (old, new))
            cells.append([name, row.name, *shown, "yes" if holds else "NO"])
            failed += [f"{name} {row.name}"] * (not holds)
    if not cells:
        raise InputError("no weights are stored here. Run a row first: scripts/reproduce TABLE ROW")
    print(tables.markdown(["table", "row", "stored, first seed", "now", "holds"], cells))
    if failed:
        raise RunError(
            f"other numbers than the stored ones: {', '.join(failed)}. Look for what changed"
        )


def check_row(
    name: str, table: Table, row: Row, data_dir: Path | None
) -> tuple[list[float], list[float], bool]:
    """The stored numbers of the first seed, those of its weights now, and whether they hold.

    On the same versions and devices they must be equal, elsewhere within `AGREE`.
    """
    result = result_of(name, row.name)
    if result is None:
        raise RunError(f"{place(name, row.name).result} is missing. Restore it")
    config = table.configuration(row)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    learner, weights = learner_of(result), place(name, row.name).weights
    now = retest(table.experiment, config, weights)
    old, new = (
        [values[0] for values in numbers(table.experiment, each, learner)] for each in (result, now)
    )
    tolerance = 0 if same_place(result) else AGREE[table.experiment]
    return old, new, bool(np.allclose(old, new, rtol=0, atol=tolerance))


def same_place(result: dict[str, Any]) -> bool:
    """Whether a result comes from versions and devices like those of this process."""
    from jaxdl.runs.provenance import provenance

    here = provenance()
    return all(
        here[key] == result["run"][key] for key in ("python", "packages", "device", "machine")
    )


if __name__ == "__main__":
    sys.exit(cli.subcommand("scripts/reproduce", Arguments, main, sys.argv[1:]))
