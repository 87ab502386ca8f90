"""A grid of hyper-parameters: a run for each combination, their table, and the test of the best.

Each run has a directory, a checkpoint and a log of its own, as if its command had trained it. So
the command of a combination goes on from there, and tests it. Here the best on validation alone is
tested, because a test of all of them would tempt to choose by the test.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.files.atomic import plain, read_json, write_text, writing
from jaxdl.recipes.grid_training import DIVERGED, Plan, train_grid
from jaxdl.report import grids, pictures
from jaxdl.runs import config as ranges
from jaxdl.runs import identity
from jaxdl.runs.config import flat
from jaxdl.runs.grid import Grid, named
from jaxdl.runs.journal import Journal
from jaxdl.runs.progress import say
from jaxdl.runs.run import Run, open_run
from jaxdl.runs.signals import caught_signals
from jaxdl.runs.weights import digest_of_start


class Experiment(NamedTuple):
    """What a grid needs of an experiment.

    `name`: that of its folder of runs. `main`: its command.
    `frame`: configuration -> the options of `run_experiment` by name.
    `plan`: configuration -> what to train.
    `begin`: called for each run before it trains, with its configuration.
    """

    name: str
    main: Callable[[Any], Any]
    frame: Callable[[Any], dict[str, Any]]
    plan: Callable[[Any], Plan]
    begin: Callable[[Any, Run], None]


class _Cell(NamedTuple):
    """One combination: its values as they were written, configuration, options and directory."""

    values: Mapping[str, str]
    config: Any
    frame: Mapping[str, Any]
    directory: Path


def run_grid(experiment: Experiment, configs: Sequence[Any], grid: Grid) -> list[grids.Row]:
    """Trains the part of a grid that this command takes, and prints the table of the whole grid.

    If all runs have ended, and the command takes all of them, the best is tested by its command.

    Args:
        configs: of all combinations, in the order of `grid.arguments`.

    Raises:
        InputError: if a flag with several values is no number that can vary in one program, or a
            value is out of its range, or as `open_run`.
        RunError: as `open_run`.
    """
    _refuse_axes(configs[0], grid)
    frames = [experiment.frame(config) for config in configs]
    for config, frame in zip(configs, frames, strict=True):
        ranges.check(config)
        frame["check"](config)
    frames[0]["prepare"]()  # before JAX starts
    cells = []
    for values, given, frame in zip(grid.values(), configs, frames, strict=True):
        config = named(given, values)
        cells.append(_Cell(values, config, frame, _directory(experiment.name, config, frame)))
    plan = experiment.plan(configs[0])
    mine = [cells[n] for n in grid.part() if not _has_ended(cells[n], plan)]
    if mine:
        _train(experiment, plan, mine, set(grid.axes))
    rows = [_row(cell, plan) for cell in cells]
    _write(configs[0], experiment.name, grid, rows, plan.metric)
    best = grids.best_of(rows, plan.metric)
    if grid.shard is not None:
        say("the same command without --shard tests the best, once all shards have ended")
    elif best is not None:
        print(f"\nThe best on validation, and its test:\n{cells[best].directory}\n")
        experiment.main(cells[best].config)
    return rows


def _refuse_axes(config: Any, grid: Grid) -> None:
    may = ["lr"] * ("lr" in flat(config))
    may += [name for name, value in vars(config.method).items() if type(value) is float]
    for name, values in grid.axes.items():
        if name not in may:
            raise InputError(
                f"`{name}={' '.join(values)}`: in one program only {', '.join(may)} can vary. Start"
                " a command for each value"
            )
    flags = config.run
    if parallel.joining(flags.coordinator, flags.processes, flags.process) is not None:
        raise InputError("a grid trains in one process. Give each process a part by --shard I/N")


def _directory(name: str, config: Any, frame: Mapping[str, Any]) -> Path:
    weights = digest_of_start(config)
    contents = {**frame["contents"], **({"init_from": weights} if weights else {})}
    return identity.directory(name, config, frame["label"], contents)


def _train(experiment: Experiment, plan: Plan, cells: Sequence[_Cell], fields: set[str]) -> None:
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        runs = []
        for cell in cells:
            options = {name: cell.frame[name] for name in ("label", "contents")}
            opened = open_run(experiment.name, cell.config, signals=signals, **options)
            runs.append(stack.enter_context(opened))
            experiment.begin(cell.config, runs[-1])
        train_grid(plan, [cell.config for cell in cells], runs, fields)


def _found(cell: _Cell, plan: Plan) -> tuple[bool, list[float]]:
    """Whether a run has ended, and what each seed reached on validation."""
    lines = Journal(cell.directory).read("validation")
    steps = lines["step"].tolist() if lines else []
    checkpoint = cell.directory / "checkpoints" / str(cell.config.steps)
    if not (steps and steps[-1] == cell.config.steps and checkpoint.exists()):
        return False, []
    values = lines[plan.metric] if plan.keeps_best else lines[plan.metric][-1:]
    # NaN is the worst, as where the best parameters are kept.
    best = (np.fmin if plan.metric == "loss" else np.fmax).reduce(values, axis=0)
    return True, best.tolist()


def _diverged(cell: _Cell) -> bool:
    path = cell.directory / DIVERGED
    return path.exists() and bool(read_json(path).get("steps") == cell.config.steps)


def _has_ended(cell: _Cell, plan: Plan) -> bool:
    return _found(cell, plan)[0] or _diverged(cell)


def _row(cell: _Cell, plan: Plan) -> grids.Row:
    ended, found = _found(cell, plan)
    note = "" if ended else "diverged" if _diverged(cell) else "not yet"
    return grids.Row(cell.values, found, str(cell.directory), note)


def _write(config: Any, name: str, grid: Grid, rows: Sequence[grids.Row], metric: str) -> None:
    """Prints the table of a grid; writes grid.json and its heat map."""
    own = hashlib.sha256("\n".join(Path(row.directory).name for row in rows).encode()).hexdigest()
    directory = config.run.runs_dir / name / (config.run.name or f"grid-{own[:8]}")
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    about = {"axes": grid.axes, "metric": metric, "best": grids.best_of(rows, metric)}
    full = plain({**about, "runs": [row._asdict() for row in rows]})
    write_text(directory / "grid.json", json.dumps(full, indent=2) + "\n")
    scale, label = grids.shown_as(metric)
    draw = partial(grids.heat_map, grid.axes, [scale * row.mean for row in rows], label)
    width = len(grid.axes[list(grid.axes)[-1]])
    size = (2.5 + width, 1.5 + 0.8 * len(rows) / width)
    say(pictures.save(directory / "grid.png", draw, size=size))
    print(grids.table(rows, metric))
