"""metrics.jsonl: one line per log point, means over steps; the same as TensorBoard events.

seconds.jsonl has the time that the training has taken so far, at the same log points. It is a file
of its own, because times differ between two runs of one command, and metrics.jsonl does not.
"""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError, RunError, content_of, extra, in_short
from jaxdl.files.atomic import parsed, plain, write_text, writing

OWN = ("step", "split")
"""The names of a line's own fields, which no metric can have."""


class Journal:
    """The metrics of the run in `directory`, written by the first process alone.

    `name` is that of the file.

    Raises:
        InputError: if `tensorboard` is true and tensorboardX is not installed.
    """

    def __init__(
        self, directory: Path, *, name: str = "metrics.jsonl", tensorboard: bool = False
    ) -> None:
        self.path = directory / name
        self._writer: Any = None
        self._board: Any = None
        self._cut_at: int | None = None
        if tensorboard:
            with extra("tensorboard"):
                from tensorboardX import SummaryWriter
            self._writer = SummaryWriter

    def append(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds a line of metrics: numbers, or one number per seed.

        Raises:
            InputError: if a metric has the name of a field of the line.
            RunError: if the line cannot be written.
        """
        for name in OWN:
            if name in metrics:
                raise InputError(
                    f"a metric is called {name!r}, as a field of each line of {self.path.name} is."
                    " Give it another name"
                )
        if not parallel.is_first():
            return
        line = json.dumps({"step": step, "split": split, **plain(metrics)})
        with writing(self.path) as path, path.open("a") as file:
            file.write(line + "\n")
        if self._writer is not None:
            self._append_events(json.loads(line))

    def read(self, split: str) -> dict[str, np.ndarray]:
        """The lines of one split as float64 arrays: `step` `[lines]`, the others `[lines, seeds]`.

        A line that is damaged, or lacks a metric of the first line, is left out. Of a line with
        more metrics, those of the first line are read.
        """
        lines = [line for line in map(_parsed, self._lines()) if line.pop("split", None) == split]
        names = list(lines[0]) if lines else []
        whole = [line for line in lines if line.keys() >= set(names)]
        with content_of(self.path, "Put the file back"):
            return {name: _values([line[name] for line in whole], name) for name in names}

    def splits(self) -> list[str]:
        """The names of the splits, in the order of their first lines."""
        found = (line.get("split") for line in map(_parsed, self._lines()))
        return list(dict.fromkeys(name for name in found if isinstance(name, str)))

    def cut(self, step: int) -> None:
        """Drops incomplete lines and lines after `step`; a resumed run writes them again."""
        self._cut_at = step
        self.select(lambda at, split: at <= step)

    def select(self, wanted: Callable[[int, str], bool]) -> None:
        """Keeps only the lines whose step and split are wanted."""

        def is_wanted(line: str) -> bool:
            found = _parsed(line)
            return bool(found) and wanted(found["step"], found.get("split", ""))

        if parallel.is_first() and self.path.exists():
            kept = filter(is_wanted, self._lines())
            write_text(self.path, "".join(line + "\n" for line in kept))

    def mark(self, step: int) -> dict[str, int] | None:
        """How many lines there are up to `step`, and their checksum. None if nobody writes here."""
        if not parallel.is_first():
            return None
        lines = [line for line in self._lines() if _parsed(line).get("step", math.inf) <= step]
        return {"step": step, "lines": len(lines), "crc32": _crc32(lines)}

    def begins_as(self, mark: Mapping[str, int]) -> bool:
        """Whether the lines of an earlier `mark` are still there, and are still the same."""
        step = mark.get("step", math.inf)  # earlier versions did not note it
        parsed_lines = ((line, _parsed(line)) for line in self._lines())
        found = [line for line, values in parsed_lines if values and values["step"] <= step]
        lines = found[: mark["lines"]]
        return len(lines) == mark["lines"] and _crc32(lines) == mark["crc32"]

    def close(self) -> None:
        """Finishes the events file."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be read ({error.strerror}). Put the file back"
            ) from error

    def _append_events(self, line: dict[str, Any]) -> None:
        if self._board is not None:
            return self._add_events(line)
        # Events from `first` on belong to lines that were cut. The lines that stayed come again.
        first = line["step"] if self._cut_at is None else min(self._cut_at, line["step"])
        self._board = self._writer(str(self.path.parent), purge_step=first)
        for kept in map(_parsed, self._lines()):
            if kept.get("step", -1) >= first:
                self._add_events(kept)

    def _add_events(self, line: dict[str, Any]) -> None:
        for name, values in line.items():
            if name not in OWN:
                mean = float(np.mean(np.asarray(values, np.float64)))
                self._board.add_scalar(f"{line['split']}/{name}", mean, line["step"])


class Window:
    """Sums of metrics since the last line of the journal.

    Steps are added one at a time, in order. So neither chunk borders nor a resume changes a bit of
    the means. One NaN step makes the mean NaN.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._sums: dict[str, np.ndarray] = {}

    @property
    def count(self) -> int:
        """How many steps were added."""
        return max(self._counts.values(), default=0)

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any]) -> "Window":
        """The window that `notes` were made from."""
        window = cls()
        window._sums = {name: np.asarray(sums, np.float64) for name, sums in notes["sums"].items()}
        # Earlier versions noted one count for all metrics.
        window._counts = notes.get("counts") or dict.fromkeys(window._sums, notes.get("count", 0))
        return window

    def notes(self) -> dict[str, Any]:
        """The window as values for JSON, exact to the last bit."""
        return {"counts": dict(self._counts), "sums": plain(self._sums)}

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Adds the metrics `[seeds, steps]` of a chunk; each counts from the first that has it."""
        for name, values in metrics.items():
            start = self._sums.get(name, np.zeros_like(values[:, 0], np.float64))
            rows = np.concatenate([start[:, None], values.astype(np.float64)], axis=1)
            self._sums[name] = np.cumsum(rows, axis=1)[:, -1]
            self._counts[name] = self._counts.get(name, 0) + values.shape[1]

    def means(self) -> dict[str, np.ndarray]:
        """The means over steps, `[seeds]`, float64."""
        return {name: sums / self._counts[name] for name, sums in self._sums.items()}


def _values(of_lines: list[Any], name: str) -> np.ndarray:
    """A metric as an array: a number per line, or a number per line and seed."""
    found = np.asarray(of_lines, np.float64)
    if found.ndim > 2 or not found.size:
        raise ValueError(f"{name} is {in_short(of_lines[0])}")
    return found


def _crc32(lines: Sequence[str]) -> int:
    return zlib.crc32("\n".join(lines).encode())


def _parsed(line: str) -> dict[str, Any]:
    """A line as a dictionary; empty for an incomplete line, which a killed process may leave."""
    try:
        found = parsed(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else {}
