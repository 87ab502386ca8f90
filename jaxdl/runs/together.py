"""Several runs that train in one program, each supervised and stored as if it were alone.

So a signal, a kill or a full disk costs none of them more than it costs a single run, and each one
goes on by itself. If the loss of one is not finite, it stops, and the others go on.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import parallel
from jaxdl.runs.best import validation
from jaxdl.runs.progress import say
from jaxdl.runs.run import Run
from jaxdl.runs.supervise import Diverged, SaveClock, Training
from jaxdl.types import PyTree

Chunk = tuple[int, PyTree, Mapping[str, np.ndarray]]
Validate = Callable[[PyTree], Mapping[str, Any]]


@dataclasses.dataclass
class Together:
    """Open runs of equal `steps` and flags, at one step.

    `split` gives the state of each run, and `seeds` is how many each one trains. `failed` has the
    messages of the runs that stopped, by their numbers.
    """

    runs: Sequence[Run]
    split: Callable[[PyTree], Sequence[PyTree]]
    seeds: int
    failed: dict[int, str] = dataclasses.field(default_factory=dict)

    def watch(
        self,
        chunks: Iterable[Chunk],
        *,
        validate: Validate | None = None,
        eval_every: int | None = None,
        best: str = "",
    ) -> None:
        """Takes the chunks of `jaxdl.loop`, whose first axis has the seeds of all runs.

        Args:
            validate, eval_every, best: as of `Run.train`, for the seeds of all runs.

        Raises:
            Interrupted: after saving, if a signal came.
            RunError: if a checkpoint could not be written.
        """
        first, flags, steps = self._trainings[0], self.runs[0].flags, self.runs[0].steps
        progress = first.start_progress()
        clock, due = SaveClock(flags.save_minutes), self._evaluations(eval_every, validate)
        with first.signals.deferred():
            for i, state, metrics in chunks:
                progress.stepped(i)
                self._note(i, metrics)
                if not self.live():
                    break
                means = {
                    name: [rows[self._rows(n)].mean() for n in self.live()]
                    for name, rows in metrics.items()
                }
                progress.show(means, log_point=i % flags.log_every == 0 or i == steps)
                if validate is not None and due(i):
                    self.validate(i, state, validate, best)
                stopped = parallel.anyone(first.signals.came)
                if clock.is_due() or stopped or i == steps:
                    self._save(i, state)
                    clock.restart()
                if stopped:
                    ends = [self._trainings[n].stopped(i, "all of them") for n in self.live()]
                    raise ends[0] if ends else first.stopped(i, "all of them")
                progress.resumed()

    def compiled(self, seconds: float) -> None:
        """Notes how long compilation took."""
        first, *others = self._trainings
        first.compiled(seconds)
        for each in others:
            each.compile_seconds += seconds

    def validate(self, i: int, state: PyTree, validate: Validate, best: str) -> None:
        """Validates all seeds at step i; each run logs and keeps its own."""
        found = validation(validate(state), best)
        states = self.split(state)
        for n in self.live():
            own = {name: values[self._rows(n)] for name, values in found.items()}
            self.runs[n].validated(i, own, best, states[n].params)

    def live(self) -> list[int]:
        """The numbers of the runs that go on."""
        return [n for n in range(len(self.runs)) if n not in self.failed]

    @property
    def _trainings(self) -> list[Training]:
        return [run._training for run in self.runs]

    def _rows(self, n: int) -> slice:
        return slice(n * self.seeds, (n + 1) * self.seeds)

    def _evaluations(self, every: int | None, validate: Validate | None) -> Callable[[int], bool]:
        due: Callable[[int], bool] = lambda i: False  # noqa: E731
        for run in self.runs if validate is not None else ():
            due, _ = run.evaluations("validation", every)
        return due

    def _note(self, i: int, metrics: Mapping[str, np.ndarray]) -> None:
        for n in self.live():
            with self._alone(n):
                own = {name: rows[self._rows(n)] for name, rows in metrics.items()}
                self._trainings[n].note(i, own, timed=False)  # the time is that of all

    def _save(self, i: int, state: PyTree) -> None:
        states = self.split(state)
        for n in self.live():
            with self._alone(n):
                self._trainings[n].save_finite(i, states[n])

    @contextlib.contextmanager
    def _alone(self, n: int) -> Iterator[None]:
        """Lets a run that diverges stop alone."""
        try:
            yield
        except Diverged as error:
            self.failed[n] = str(error)
            say(f"{self.runs[n].directory.name}: {error}. The other runs go on")
