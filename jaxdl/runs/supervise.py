"""Supervision of a long training: checkpoints, log, progress, divergence, signals."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError, RunError, damaged
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import RunFlags
from jaxdl.runs.journal import Journal, Window
from jaxdl.runs.progress import Progress, say
from jaxdl.runs.signals import Interrupted, Signals
from jaxdl.train.divergence import can_go_on, first_bad_loss, suspect
from jaxdl.types import PyTree

SECONDS = "seconds.jsonl"
"""The file with the time of each log point."""


class Diverged(RunError):
    """The loss or the state of a training is not finite."""


class SaveClock:
    """When the next checkpoint is due, for all processes alike.

    >>> SaveClock(minutes=1.0).is_due()
    False
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self.restart()

    def restart(self) -> None:
        """Notes that a checkpoint was saved."""
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint."""
        return bool(parallel.agree(int(time.monotonic() - self._saved > self._seconds)))


class Training:
    """One training of a run, in a directory of its own; `steps` is its last step.

    `step` counts the steps done, and `seconds` the time of earlier processes. A process that
    resumes from a checkpoint takes both from there, beside the state.
    """

    def __init__(self, directory: Path, flags: RunFlags, steps: int, signals: Signals) -> None:
        self.directory = directory
        self.flags = flags
        self.steps = steps
        self.signals = signals
        self.checkpoints = Checkpoints(directory / "checkpoints")
        self.journal = Journal(directory, tensorboard=flags.tensorboard)
        self.times = Journal(directory, name=SECONDS)
        self.began = time.perf_counter()
        self.compile_seconds = 0.0
        self.seconds = 0.0
        self.step = 0
        self._progress = Progress(0, steps)
        self._window = Window()

    def restore(self, state: PyTree) -> Any:
        """The newest checkpoint, or `state` itself if there is none.

        Raises:
            InputError: if the checkpoint is later than the training's last step.
            RunError: if the checkpoint is damaged, or a line of the log before it.
        """
        if not self.checkpoints.steps():
            return state
        restored, notes = self.checkpoints.restore_with_notes(state)
        self.step = int(restored.step)
        self.refuse_fewer_than(self.step)
        self._check_journal(notes.get("journal"))
        self.seconds = notes["seconds"]
        self.compile_seconds = notes["compile_seconds"]
        self._window = Window.from_notes(notes["window"])
        return restored

    def forget_lines_to_come(self) -> None:
        """Cuts the log where a restored training goes on.

        `steps` may have changed since the last start. A longer run has no line at the old last step
        if this step is between log points, so the line goes. A run that now ends at the restored
        step needs a line there, so the line is added.
        """
        last, between = self.step == self.steps, self._window.count > 0
        self.journal.cut(self.step - (between and not last))
        self.times.cut(self.step - (between and not last))
        if between and last and self.step not in self.journal.read("train").get("step", ()):
            self.journal.append(self.step, "train", self._window.means())
            self._note_time(self.step)

    def save(self, state: PyTree) -> None:
        """Saves a checkpoint of the state at its step, in the background.

        Raises:
            RunError: if it, or the previous one, could not be written.
        """
        state = parallel.local(state)
        # The lines of a last step may go when the run is made longer, so the mark has none of them.
        step = int(state.step)
        notes = {
            "journal": self.journal.mark(step - (step == self.steps)),
            "seconds": self.elapsed(),
            "compile_seconds": self.compile_seconds,
            "window": self._window.notes(),
        }
        self.checkpoints.save(step, state, notes)

    def elapsed(self) -> float:
        """Seconds that the training has taken so far, in this process and in earlier ones."""
        return self.seconds + time.perf_counter() - self.began

    def compiled(self, seconds: float) -> None:
        """Notes how long compilation took."""
        self.compile_seconds += seconds
        self._progress.restart(self.step)
        say(f"compiled in {seconds:.1f} s")

    def start_progress(self) -> Progress:
        """Begins to measure the rate."""
        self._progress = Progress(self.step, self.steps)
        return self._progress

    def watch(
        self, chunks: Iterable[tuple[int, Any, dict[str, np.ndarray]]]
    ) -> Iterator[tuple[int, Any]]:
        """Yields `(i, state)` at every log point, and supervises the training in between.

        It shows the rate and the time left, and writes metrics.jsonl. It saves checkpoints by the
        clock and at the end. Between two chunks it handles Ctrl-C and SIGTERM. It stops at the
        first loss (see `divergence.is_loss`) that is not finite.

        Raises:
            Interrupted: after saving, if a signal came.
            RunError: if training diverged or a checkpoint could not be written.
        """
        self.start_progress()
        clock = SaveClock(self.flags.save_minutes)
        with self.signals.deferred():
            for i, state, metrics in chunks:
                means, regular = self.note(i, metrics)
                self._progress.stepped(i)
                self._progress.show(means, log_point=regular)
                if regular:
                    yield i, state
                stopped = parallel.anyone(self.signals.came)
                if clock.is_due() or stopped or i == self.steps:
                    self.save_finite(i, state)
                    clock.restart()
                if stopped:
                    raise self.stopped(i, str(self.directory))
                self._progress.resumed()

    def note(
        self, i: int, unsorted: dict[str, np.ndarray], *, timed: bool = True
    ) -> tuple[dict[str, np.ndarray], bool]:
        """Notes the metrics `[seeds, steps]` of a chunk that ends at step i, in metrics.jsonl too.

        Args:
            timed: whether the time so far is of this training alone, so that it is worth a line.

        Returns:
            The means since the last log point, and whether this is one.

        Raises:
            Diverged: if a loss is not finite.
        """
        metrics = dict(sorted(unsorted.items(), key=lambda item: item[0] != "loss"))
        self._check_finite(i, metrics)
        self._window.add(metrics)
        self.step, regular = i, i % self.flags.log_every == 0
        means = self._window.means()
        if regular:
            self._window = Window()
        if regular or i == self.steps:
            self.journal.append(i, "train", means)
            if timed:
                self._note_time(i)
        return means, regular or i == self.steps

    def _note_time(self, i: int) -> None:
        taken = {"seconds": self.elapsed(), "compile_seconds": self.compile_seconds}
        self.times.append(i, "train", taken)

    def stopped(self, i: int, what: str) -> Interrupted:
        """The exception for a signal, after the checkpoint of step i is complete."""
        self.checkpoints.wait()
        return self.signals.interrupted(
            f"saved at step {i:,} of {self.steps:,}. The same command resumes {what}"
        )

    def refuse_fewer_than(self, done: int) -> None:
        """Refuses a training that has done more steps than `steps`.

        Raises:
            InputError: if `done` is above `steps`.
        """
        if self.steps < 1:
            raise InputError(f"`steps={self.steps}`: choose at least 1")
        if done > self.steps:
            raise InputError(
                f"{self.directory} has already done {done:,} steps, more than `steps={self.steps}`."
                " Choose another `name=` for a shorter run"
            )

    def save_finite(self, step: int, state: PyTree) -> None:
        """Saves a state that is finite; the losses did not show the effect of the last update.

        Raises:
            Diverged: if it is not finite.
            RunError: if it could not be written.
        """
        state = parallel.local(state)
        if not can_go_on(state):
            raise self._diverged(step, "state", suspect({}, step))
        self.save(state)

    def _check_journal(self, mark: Mapping[str, int] | None) -> None:
        """Refuses a log that has lost lines since the checkpoint, because results are made of it.

        Checkpoints of earlier versions have no mark.
        """
        if mark is not None and parallel.is_first() and not self.journal.begins_as(mark):
            raise damaged(
                self.journal.path,
                f"it does not begin with the lines that it had at checkpoint {self.step:,}",
                "Put the file back, or choose another `name=` to start a new run",
            )

    def _check_finite(self, i: int, metrics: dict[str, np.ndarray]) -> None:
        if (found := first_bad_loss(metrics)) is not None:
            first = i - next(iter(metrics.values())).shape[1]
            raise self._diverged(first + found[0] + 1, found[1], suspect(metrics, first))

    def _diverged(self, step: int, what: str, suspicion: str) -> Diverged:
        self.checkpoints.wait()
        kept = self.checkpoints.steps()
        folder = self.checkpoints.directory
        good = (
            f"The last good checkpoint is {folder}/{kept[-1]}"
            if kept
            else "No checkpoint was saved"
        )
        return Diverged(
            f"training diverged: the {what} is not finite at step {step:,}. {good}. Try a lower"
            " learning rate or clipping, and check that labels and task numbers are in range."
            f" {suspicion}".rstrip(". ")
        )
