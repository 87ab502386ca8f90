"""The tasks of a table: few-shot tasks over the values of its target, or a task per group."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.data.examples import examples
from jaxdl.data.groups import grouped
from jaxdl.data.sets import splits
from jaxdl.data.sets.csv_table import Table
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.recipes.own_data import table_of
from jaxdl.recipes.tasks import Tasks, counts_of, few_shot_of_split
from jaxdl.types import Sampler

FEW = 10
"""So many whole numbers in a target may be meant as classes."""


def table_tasks(config: Mapping[str, Any]) -> Tasks:
    """The tasks of a run with `data=table`, by the fields of its configuration.

    Without a task column, the values of the target are classes, which are split. With one, its
    values are tasks, which are split; the target is a number, or a class that means the same in all
    tasks. Numeric columns, and a numeric target, are standardised by the rows of the training
    tasks.

    Raises:
        InputError: as `table_of`, or if there are too few classes or tasks.
    """
    table = table_of(config)
    units = table.target if table.tasks is None else table.tasks
    options = {"seed": config["split_seed"], "lists": config["class_lists"]}
    found = sorted(set(units.tolist()))
    names = splits.split_classes(found, **options)
    rule = splits.rule_of(found, **options, noun="Class" if table.tasks is None else "Task")
    rule += f" Sizes: {', '.join(f'{len(part)} for {name}' for name, part in names.items())}."
    rows = {name: np.flatnonzero(np.isin(units, part)) for name, part in names.items()}
    x, scaling = _standardised(table, rows["train"])
    if table.tasks is None:
        return _few_shot(config, table, x, rows, scaling, rule)
    return _groups(config, table, x, rows, scaling, rule)


def _few_shot(
    config: Mapping[str, Any],
    table: Table,
    x: np.ndarray,
    rows: Mapping[splits.Split, np.ndarray],
    scaling: dict[str, Any],
    rule: str,
) -> Tasks:
    draw = {
        name: few_shot_of_split(config, name, x[of], table.target[of]) for name, of in rows.items()
    }
    numbers = {name: len(set(table.target[of].tolist())) for name, of in rows.items()}
    labels = np.unique(table.target[rows["train"]], return_inverse=True)[1]
    return Tasks(
        train=draw["train"],
        validation=draw["validation"],
        test=draw["test"],
        labelled=examples(x[rows["train"]], labels),
        classes=numbers["train"],
        ways=config["ways"],
        test_ways=config.get("test_ways") or config["ways"],
        train_x=x[:2],
        test_x=x[:2],
        split=f"test: {numbers['test']} classes that training never saw",
        notes=(rule,),
        scaling=scaling,
    )


def _groups(
    config: Mapping[str, Any],
    table: Table,
    x: np.ndarray,
    rows: Mapping[splits.Split, np.ndarray],
    scaling: dict[str, Any],
    rule: str,
) -> Tasks:
    if config.get("test_ways"):
        raise InputError("tasks of a table have all classes of its target. Leave out `test_ways=`")
    regression = np.issubdtype(table.target.dtype, np.floating)
    if regression:
        mean, std = _mean_and_std(table.target[rows["train"], None])
        y = ((table.target[:, None] - mean) / std).astype(np.float32)
        scaling = {**scaling, "target_mean": mean.item(), "target_std": std.item()}
        outputs, notes = 1, [f"Errors are in units of the target's deviation, {std.item():.4g}."]
        if len(values := np.unique(table.target)) <= FEW and (values == np.round(values)).all():
            notes.append(
                f"The target has {len(values)} different whole numbers, taken as numbers. If they"
                " are classes, give --target-kind class."
            )
    else:
        values, y = np.unique(table.target, return_inverse=True)
        outputs, notes = len(values), []

    groups = np.asarray(table.tasks)

    def tasks(name: splits.Split) -> Sampler:
        counts = counts_of(config, test=name != "train")
        of, counts = rows[name], {key: counts[key] for key in ("shots", "queries")}
        return grouped(x[of], y[of], groups[of], **counts)

    numbers = {name: len(set(groups[of].tolist())) for name, of in rows.items()}
    train = rows["train"]
    return Tasks(
        train=tasks("train"),
        validation=tasks("validation"),
        test=tasks("test"),
        labelled=None if regression else examples(x[train], y[train]),
        classes=outputs,
        ways=outputs,
        test_ways=outputs,
        train_x=x[:2],
        test_x=x[:2],
        split=f"test: {numbers['test']} tasks that training never saw",
        notes=(rule, *notes),
        scaling=scaling,
        loss=mean_squared_error if regression else cross_entropy,
        metric="loss" if regression else "accuracy",
    )


def _standardised(table: Table, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The features, with numeric columns standardised by some rows, and how."""
    mean, std = _mean_and_std(table.numbers[rows])
    x = np.concatenate([(table.numbers - mean) / std, table.categories], axis=1)
    about = {"columns": table.columns, "mean": mean.tolist(), "std": std.tolist()}
    return x.astype(np.float32), about


def _mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column; a constant column has the deviation 1."""
    wide = values.astype(np.float64)
    std = wide.std(axis=0)
    return wide.mean(axis=0), np.where(std > 0, std, 1.0)
