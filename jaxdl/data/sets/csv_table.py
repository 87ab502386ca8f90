"""A CSV file as arrays: features `[rows, columns]`, a target, and the task of each row."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from jaxdl.errors import InputError

MOST_TEXTS = 100
"""A column with more different texts is a name or a number of rows, and no category."""


class Table(NamedTuple):
    """The rows of a table.

    `numbers`: the numeric columns `[rows, numbers]`, as they stand in the file. Times, for one,
    differ in digits that float32 does not have.
    `categories`: the other columns `[rows, categories]`, an indicator for each value of each.
    `target`: float64 `[rows]` for a regression, else the text of each row's class.
    `tasks`: the text of each row's task; None without a task column.
    `columns`: the names of the features: those of `numbers`, then those of `categories`.
    """

    numbers: Float64[np.ndarray, "rows numbers"]
    categories: Float32[np.ndarray, "rows categories"]
    target: np.ndarray
    tasks: np.ndarray | None
    columns: tuple[str, ...]


def read_table(
    path: Path | str,
    target: str,
    *,
    task: str = "",
    kind: Literal["auto", "class", "number"] = "auto",
) -> Table:
    """Reads a CSV file with a header; `.tsv` has tabs between its cells.

    A column is numeric if each of its cells is a number. Other columns are categories. A column of
    which more than half are numbers must be all numbers. Digits that `_` divides are a text.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "wine.csv"
    ...     written = path.write_text("acid,colour,grade\\n3.1,red,7\\n2.9,white,5.5\\n")
    ...     table = read_table(path, "grade")
    >>> table.columns, table.numbers.shape, table.categories.tolist(), table.target.tolist()
    (('acid', 'colour=red', 'colour=white'), (2, 1), [[1.0, 0.0], [0.0, 1.0]], [7.0, 5.5])

    Args:
        target: name of the column to predict.
        task: name of the column that says to which task a row belongs.
        kind: whether the target is a class or a number. "auto": a number if all of it are.

    Raises:
        InputError: if the file has no such column, or a cell is empty or not finite, or a text
            among numbers, or a row has another number of cells, or a column holds too many texts.
    """
    path = Path(path)
    header, lines, rows = _read(path)
    for name, role in ((target, "target"), (task, "task")):
        if name not in header and (name or role == "target"):
            raise InputError(
                f"{path} has no column {name!r}: `{role}=` names one of {', '.join(header)}"
            )
    if task == target:
        raise InputError(f"`task={task}` is the target, too. Choose two columns")
    _refuse_empty(path, header, lines, rows)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    wanted, tasks = columns.pop(target), columns.pop(task, None)
    parsed = {name: _numbers(cells) for name, cells in columns.items()}
    _refuse_infinite(path, lines, parsed)
    _refuse_text_among_numbers(path, lines, columns)
    numeric = [name for name, values in parsed.items() if values is not None]
    names, indicators = list(numeric), []
    for name in (name for name in columns if name not in numeric):
        values = sorted(set(columns[name]))
        if len(values) > MOST_TEXTS:
            raise InputError(
                f"column {name!r} of {path} has {len(values)} different texts. Leave the column"
                f" out, or write numbers or at most {MOST_TEXTS} categories in it"
            )
        names += [f"{name}={value}" for value in values]
        indicators += [[float(cell == value) for cell in columns[name]] for value in values]
    if not names:
        raise InputError(
            f"{path} has no column beside the target and the task. Add one to predict by"
        )
    return Table(
        _stacked([parsed[name] or [] for name in numeric], len(rows)),
        _stacked(indicators, len(rows)).astype(np.float32),
        _target(path, lines, target, wanted, kind),
        None if tasks is None else np.array(tasks),
        tuple(names),
    )


def _read(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """The header, and of each row its line in the file and its cells; without blank lines."""
    if not path.is_file():
        raise InputError(f"there is no file {path}. Check `path=`")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            found = [(lines.line_num, [cell.strip() for cell in line]) for line in lines if line]
    except (csv.Error, UnicodeError) as error:
        raise InputError(f"{path} is no CSV file in UTF-8 ({error}). Convert it") from error
    if len(found) < 2:
        raise InputError(f"{path} has no rows. Give a header and rows below it")
    (_, header), rows = found[0], found[1:]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"two columns {twice[0]!r}" if twice and twice[0] else "a column without a name"
        raise InputError(f"{path} has {what}. Name each column once in the first line")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells, but {len(header)} columns. Correct it"
            )
    return header, [line for line, _ in rows], [row for _, row in rows]


def _refuse_empty(
    path: Path, header: Sequence[str], lines: Sequence[int], rows: Sequence[Sequence[str]]
) -> None:
    for line, row in zip(lines, rows, strict=True):
        if "" in row:
            raise InputError(
                f"{path}, line {line}: the cell in column {header[row.index('')]!r} is empty. Fill"
                " it, or leave the row out"
            )


def _numbers(cells: Sequence[str]) -> list[float] | None:
    if any("_" in cell for cell in cells):  # Python reads 1_1, a code, as 11
        return None
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None


def _refuse_infinite(
    path: Path, lines: Sequence[int], columns: dict[str, list[float] | None]
) -> None:
    for name, values in columns.items():
        for line, value in zip(lines, values or (), strict=False):  # no values: a text column
            if not math.isfinite(value):
                raise InputError(
                    f"{path}, line {line}: column {name!r} has {value}. Write a number, or leave"
                    " the row out"
                )


def _refuse_text_among_numbers(
    path: Path, lines: Sequence[int], columns: dict[str, list[str]]
) -> None:
    for name, cells in columns.items():
        texts = [i for i, cell in enumerate(cells) if _numbers([cell]) is None]
        if 0 < 2 * len(texts) < len(cells):
            raise InputError(
                f"{path}, line {lines[texts[0]]}: column {name!r} has {cells[texts[0]]!r} among"
                " numbers. Write a number, or leave the row out; for categories write words in all"
                " rows"
            )


def _target(path: Path, lines: Sequence[int], name: str, cells: list[str], kind: str) -> np.ndarray:
    values = None if kind == "class" else _numbers(cells)
    if values is not None:
        _refuse_infinite(path, lines, {name: values})
        return np.array(values)
    if kind == "auto" and _numbers([cell.replace("_", "") for cell in cells]) is not None:
        raise InputError(
            f"column {name!r} of {path} has digits with `_` between them. Write numbers without, or"
            " say that they are classes, by `target_kind=class`"
        )
    if kind == "number":
        text = next(cell for cell in cells if _numbers([cell]) is None)
        raise InputError(f"column {name!r} of {path} has the text {text!r}. Write numbers in it")
    return np.array(cells)


def _stacked(columns: Sequence[Sequence[float]], rows: int) -> np.ndarray:
    return np.array(columns, np.float64).reshape(len(columns), rows).T
