"""Progress for the user, on standard error; results go to standard output."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxdl import parallel

Part = TypeVar("Part")

WINDOW = 20.0
"""Seconds over which rates are averaged, because the first steps after a start are not typical."""


def say(line: str, end: str = "\n") -> None:
    """Prints a line on standard error, from the first process only.

    A run outlives its log: a line that cannot be written is lost.
    """
    if parallel.is_first() and sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, end=end, file=sys.stderr, flush=True)


class Notes(logging.Handler):
    """Shows what jaxdl logs, each line once, because a function may be traced many times.

    >>> notes = Notes()
    >>> logging.getLogger("jaxdl").addHandler(notes)
    >>> logging.getLogger("jaxdl").removeHandler(notes)
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one record."""
        line = record.getMessage()
        if line not in self._shown:
            self._shown.add(line)
            say(line)


def clock(seconds: float) -> str:
    """`[hours:]minutes:seconds`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def timed(parts: Sequence[Part], what: str, sizes: Sequence[float] = ()) -> Iterator[Part]:
    """The parts of a test or an evaluation, in turn, and after each one the time that is left.

    The first part may compile. So it does not count as soon as there is a second one. On a
    terminal, one line updates. In a log, there is a line per `WINDOW` seconds.

    Args:
        what: the beginning of the line.
        sizes: the work of each part. By default the parts are equal.

    >>> list(timed(["first", "second"], "testing"))
    ['first', 'second']
    """
    sizes = sizes or [1] * len(parts)
    total, done, shown = sum(sizes), 0.0, time.perf_counter()
    then, before = shown, done
    for part, size in zip(parts, sizes, strict=True):
        yield part
        now, first = time.perf_counter(), done == 0
        done += size
        left = (total - done) * (now - then) / max(done - before, 1e-9)
        if first:
            then, before = now, done
        line = f"{what}: {100 * done / total:.0f} % done, {clock(left)} left"
        if _on_terminal():
            say(f"\r\033[K{line}" if done < total else "\r\033[K", end="")
        elif now - shown > WINDOW and done < total:
            shown = now
            say(line)


class Progress:
    """The rate of a training, shown per log point, or as one line that updates on a terminal.

    The rate in steps/s counts training alone. The time left counts everything between steps,
    validations too, but no compilation. So call `restart` after a compilation.
    """

    def __init__(self, step: int, steps: int) -> None:
        self._steps = steps
        self._busy = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        """Forgets the time until now."""
        self._resumed = time.perf_counter()
        self._marks = [(self._resumed, self._busy, step)]

    def resumed(self) -> None:
        """Starts the training clock again, after `stepped` and any other work."""
        self._resumed = time.perf_counter()

    def stepped(self, step: int) -> None:
        """Notes the end of a chunk of steps."""
        now = time.perf_counter()
        self._busy += now - self._resumed
        self._marks.append((now, self._busy, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.pop(0)

    def line(self, means: Mapping[str, Any]) -> str:
        """Step, rate, the metrics (means over seeds), time left.

        A metric of a part, as "loss/0", is left out where there is one of the whole, "loss".
        """
        (then, busy_then, before), (now, busy, step) = self._marks[0], self._marks[-1]
        count = max(step - before, 1)
        rate = count / max(busy - busy_then, 1e-9)
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        left = (self._steps - step) * (now - then) / count
        total = f"{self._steps:,}"
        whole = {n: v for n, v in means.items() if "/" not in n or n.split("/")[0] not in means}
        values = "  ".join(f"{name} {np.mean(value):.4f}" for name, value in whole.items())
        return f"step {step:>{len(total)},}/{total}  {shown} steps/s  {values}  {clock(left)} left"

    def show(self, means: Mapping[str, Any], *, log_point: bool) -> None:
        """Shows the line: always on a terminal, else at log points only."""
        if _on_terminal():
            end = "\n" if self._marks[-1][2] == self._steps else ""
            say(f"\r\033[K{self.line(means)}", end)
        elif log_point:
            say(self.line(means))


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
