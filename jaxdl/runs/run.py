"""A run is a directory: configuration, metrics, checkpoints, pictures and result of one experiment.

    runs/<experiment>/<name>/
        config.yaml     the configuration, and the code, packages and device that ran it
        metrics.jsonl   one line a log point
        checkpoints/    what the next step needs; the newest two
        best/           parameters that were best on validation, of each seed, and their steps
        result.json     written last: the result after so many steps
        *.png           pictures

The same command again resumes a run that was stopped, and reprints the result of a finished one.
"""

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import plain, read_json, write_text, writing
from jaxdl.report import pictures
from jaxdl.runs import identity
from jaxdl.runs.best import Best
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.checks import at_least
from jaxdl.runs.identity import load_config
from jaxdl.runs.journal import Journal, Window
from jaxdl.runs.progress import Progress, say
from jaxdl.runs.provenance import provenance
from jaxdl.runs.signals import Interrupted, Signals, caught_signals
from jaxdl.runs.stored import load_best
from jaxdl.runs.weights import digest_of_start
from jaxdl.train.divergence import can_go_on, first_bad_loss
from jaxdl.train.feed import HostStream
from jaxdl.train.loop import loop
from jaxdl.types import Key, Params, StepFn, Stream

__all__ = ["Interrupted", "Run", "RunFlags", "load_config", "open_run", "say"]


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Where a run lives, how it reports and on what it runs: all of it may change on resume."""

    name: str = ""
    """Name of the run directory; by default made of the configuration, so that the same command
    finds the same run."""
    runs_dir: Path = Path(os.environ.get("JAXDL_RUNS", "runs"))
    """Where run directories live; the environment variable JAXDL_RUNS changes the default."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    save_minutes: float = 2.0
    """Minutes between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the tensorboard extra)."""
    devices: int = 0
    """Devices that share the tasks of a step; 0 takes all."""
    coordinator: str = ""
    """host:port of the first process of a run of several processes."""
    processes: int = 0
    """Number of processes of such a run."""
    process: int = -1
    """Index of this process, from 0."""


class Run:
    """An open run directory. `open_run` makes one; see the module docstring for its files."""

    def __init__(
        self,
        directory: Path,
        flags: RunFlags,
        steps: int,
        signals: Signals,
        on_resume: Callable[[], None] = lambda: None,
        part: str = "",
    ) -> None:
        self.directory = directory
        self.flags = flags
        self.steps = steps
        self._signals = signals
        self._on_resume = on_resume
        self._part = part
        self._parts: dict[str, Run] = {}
        self._checkpoints = Checkpoints(directory / "checkpoints")
        self._best = Best(directory / "best")
        self._journal = Journal(directory, tensorboard=flags.tensorboard)
        self._began = time.perf_counter()
        self._compile_seconds = 0.0
        self._progress = Progress(0, steps, 1)
        # What a resumed process takes over from the one before, beside the state.
        self._step = 0
        self._seconds_before = 0.0
        self._window = Window()

    def part(self, name: str, steps: int | None = None) -> "Run":
        """A training inside this run, a baseline say, with a directory of its own inside."""
        if name not in self._parts:
            directory = self.directory / name
            with writing(directory):
                directory.mkdir(exist_ok=True)
            inner = Run(directory, self.flags, steps or self.steps, self._signals, part=name)
            if steps is None:  # the configuration's steps are those of this part
                inner._on_resume = self._on_resume
            self._parts[name] = inner
        return self._parts[name]

    def close(self) -> None:
        """Waits for what is being written."""
        with contextlib.ExitStack() as stack:  # each of them, also where one fails
            for part in self._parts.values():
                stack.callback(part.close)
            stack.callback(self._checkpoints.close)
            stack.callback(self._best.close)
            stack.callback(self._journal.close)

    # ---- results

    def result(self) -> dict[str, Any] | None:
        """The result of the finished run, None if it has still steps to do.

        Raises:
            InputError: if the run has done more steps than it is asked for now.
            RunError: if result.json is damaged.
        """
        found, done = None, 0
        path = self.directory / "result.json"
        if path.exists():
            found = read_json(path)
            try:
                done = int(found["run"]["steps"])
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(
                    f"{path} says nothing of the steps of its run; move it away to go on"
                ) from error
            if done == self.steps:
                return found
        self._refuse_fewer_than(max([done, *self._checkpoints.steps()]))
        return None

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes result.json, which marks the run as finished, and returns its content."""
        runs = [self, *self._parts.values()]
        # Time spent before a resume counts: what earlier processes noted in the checkpoints.
        wall = sum(run._seconds_before for run in runs) + time.perf_counter() - self._began
        about = {
            "directory": self.directory,
            "steps": self.steps,
            "wall_seconds": round(wall, 1),
            "compile_seconds": round(sum(run._compile_seconds for run in runs), 1),
            **provenance(),
        }
        full: dict[str, Any] = plain({**result, "run": about})
        for run in runs:
            run._checkpoints.wait()
        if parallel.is_first():
            write_text(self.directory / "result.json", json.dumps(full, indent=2) + "\n")
        return full

    # ---- state

    def restore(self, state: Any) -> Any:
        """The newest checkpoint, or `state` itself in a run that has none.

        What was journaled and chosen after it is forgotten, for it is about to come again.

        Raises:
            InputError: if it is of a later step than the run's last.
            RunError: if it is damaged.
        """
        restored, begun = state, bool(self._checkpoints.steps())
        if begun:
            restored, notes = self._checkpoints.restore_with_notes(state)
            self._step = int(restored.step)
            self._refuse_fewer_than(self._step)
            self._seconds_before = notes["seconds"]
            self._compile_seconds = notes["compile_seconds"]
            self._window = Window.from_notes(notes["window"])
        self._on_resume()
        # Lines at a last step that is the last no more are not what a longer run would have, and
        # those at a step that has become the last one are missing.
        last, between = self._step == self.steps, self._window.count > 0
        self._journal.cut(self._step - (between and not last))
        if between and last and self._step not in self.metrics("train").get("step", ()):
            self.log(self._step, "train", self._window.means())
        self._forget(lambda step: step <= self._step)
        if begun:
            say(f"resuming {self.directory} from step {self._step:,}")
        return restored

    def save(self, state: Any) -> None:
        """Saves a checkpoint of the state at its step, in the background.

        Raises:
            RunError: if it, or the one before, could not be written.
        """
        state = parallel.local(state)
        notes = {
            "seconds": self._seconds_before + time.perf_counter() - self._began,
            "compile_seconds": self._compile_seconds,
            "window": self._window.notes(),
        }
        self._checkpoints.save(int(state.step), state, notes)

    def keep_best(self, step: int, scores: Any, params: Params) -> None:
        """Keeps, for each seed, the parameters with the highest score so far; NaN is the lowest.

        `scores` is `[seeds]`; the leaves of `params` have a leading axis `[seeds]`.

        Raises:
            RunError: if they could not be written.
        """
        if parallel.is_first():
            self._checkpoints.wait()  # one under way is one to go on from
            kept = self._checkpoints.steps()
            self._best.keep(step, np.asarray(scores), parallel.local(params), kept)
        parallel.agree(step)  # no process reads before the first has written

    def best(self, params: Params) -> tuple[Params, np.ndarray]:
        """The best parameters of each seed and the steps they come from; needs `keep_best`."""
        return load_best(self.directory, params)

    # ---- the loop

    def follow(
        self, chunks: Iterable[tuple[int, Any, dict[str, np.ndarray]]], *, tasks: int
    ) -> Iterator[tuple[int, Any]]:
        """Passes on `(i, state)` at every log point, and does what a long run needs meanwhile.

        Progress with rate and time left, metrics.jsonl, checkpoints by the clock and at the end,
        an answer to Ctrl-C and SIGTERM between two chunks, and a stop at the first loss (see
        `divergence.is_loss`) that is not finite. `tasks` is how many tasks a step takes, for the
        rate.

        Raises:
            Interrupted: after saving, when a signal came.
            RunError: when training diverged or a checkpoint could not be written.
        """
        self._progress = Progress(self._step, self.steps, tasks)
        saved = time.monotonic()
        with self._signals.deferred():
            for i, state, unsorted in chunks:
                metrics = dict(sorted(unsorted.items(), key=lambda item: item[0] != "loss"))
                self._progress.stepped(i)
                self._check_finite(i, metrics)
                self._window.add(metrics)
                self._step, done = i, i == self.steps
                regular = i % self.flags.log_every == 0
                means = self._window.means()
                self._progress.show(means, log_point=regular or done)
                if regular:
                    self._window = Window()
                if regular or done:
                    self.log(i, "train", means)
                    yield i, state
                stopped = parallel.anyone(self._signals.came)
                due = time.monotonic() - saved > 60 * self.flags.save_minutes
                if parallel.agree(int(due)) or stopped or done:
                    self._save_finite(i, state)
                    saved = time.monotonic()
                if stopped:
                    self._checkpoints.wait()
                    raise self._signals.interrupted(
                        f"saved at step {i:,} of {self.steps:,}; the same command resumes"
                        f" {self.directory}"
                    )
                self._progress.resumed()

    def train(
        self,
        step: StepFn,
        stream: Stream | HostStream,
        keys: Key,
        state: Any,
        *,
        tasks: int,
        devices: int = 1,
    ) -> Iterator[tuple[int, Any]]:
        """`train.loop` up to the run's last step, followed: see there.

        `tasks`: how many tasks or examples a step takes of each seed.
        """
        chunks = loop(
            step,
            stream,
            keys,
            state,
            steps=self.steps,
            every=self.flags.log_every,
            devices=devices,
            on_compile=self.compiled,
        )
        yield from self.follow(chunks, tasks=tasks * len(keys))

    def trained(
        self,
        step: StepFn,
        stream: Stream | HostStream,
        keys: Key,
        state: Any,
        *,
        validate: Callable[[Any], Mapping[str, Any]] | None = None,
        eval_every: int = 1,
        best: str = "",
        **counts: int,
    ) -> Any:
        """The last state of `train`, on one device; `state` if there is nothing left to do.

        `validate(state) -> metrics [seeds]` is asked every `eval_every` steps, which must be log
        points, and after the last one; what it finds becomes the "validation" lines of
        metrics.jsonl. `best` names the metric by which `keep_best` then keeps parameters.
        """
        last, points = state, self.train(step, stream, keys, state, **counts)
        if validate is not None:
            points = self.evaluation_points(points, state, split="validation", every=eval_every)
        for i, last in points:
            if validate is None:
                continue
            here = parallel.local(last)
            found = {name: np.asarray(values) for name, values in validate(here).items()}
            if best:  # before the line, which tells that nothing is missing
                self.keep_best(i, found[best], here.params)
            self.log(i, "validation", found)
            shown = ", ".join(f"{name} {values.mean():.4f}" for name, values in found.items())
            say(f"{self._part}{', ' * bool(self._part)}step {i:,}  validation {shown}")
        return parallel.local(last)

    def evaluation_points(
        self, points: Iterable[tuple[int, Any]], state: Any, *, split: str, every: int
    ) -> Iterator[tuple[int, Any]]:
        """Of the log points of a training from `state`, each `every`th step and the last one.

        The caller writes a line of `split` at each of them; `every` must be a multiple of
        `log_every`. What was journaled and chosen at a last step that is the last no more is
        forgotten, if it is no `every`th. If `state` is that of a step that has become the last one
        and has no such line, it is passed on.
        """

        def due(i: int) -> bool:
            return i % every == 0 or i == self.steps

        self._journal.select(lambda i, of: of == "train" or due(i))
        self._forget(due)
        if self._step == self.steps:
            missing = self.steps not in self.metrics(split).get("step", ())
            if parallel.agree(int(missing)):
                yield self.steps, state
        yield from ((i, now) for i, now in points if due(i))

    def compiled(self, seconds: float) -> None:
        """Notes how long compilation took; pass it to `loop` as `on_compile`."""
        self._compile_seconds += seconds
        self._progress.restart(self._step)
        say(f"compiled in {seconds:.1f} s")

    def log(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends a line of metrics (numbers, or one number a seed) to metrics.jsonl."""
        self._journal.append(step, split, metrics)

    def metrics(self, split: str) -> dict[str, np.ndarray]:
        """The lines of one split as arrays: `step` `[lines]`, the others `[lines, seeds]`."""
        return self._journal.read(split)

    def picture(self, name: str, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
        """`pictures.save` of `name`.png in the run directory."""
        if parallel.is_first():
            say(pictures.save(self.directory / f"{name}.png", draw, size=size))

    # ---- what the methods above share

    def _refuse_fewer_than(self, done: int) -> None:
        if done > self.steps:
            raise InputError(
                f"{self.directory} has already done {done:,} steps, more than --steps {self.steps};"
                " choose another --name for a shorter run"
            )

    def _forget(self, counts: Callable[[int], bool]) -> None:
        if parallel.is_first():
            self._best.forget(counts)

    def _save_finite(self, step: int, state: Any) -> None:
        """Saves a state that may be gone on from; the loss told of the state before this one."""
        state = parallel.local(state)
        if not can_go_on(state):
            raise self._diverged(step, "state")
        self.save(state)

    def _check_finite(self, i: int, metrics: dict[str, np.ndarray]) -> None:
        if (found := first_bad_loss(metrics)) is not None:
            first = i - next(iter(metrics.values())).shape[1]
            raise self._diverged(first + found[0] + 1, found[1])

    def _diverged(self, step: int, what: str) -> RunError:
        self._checkpoints.wait()
        kept = self._checkpoints.steps()
        good = f"checkpoint {kept[-1]:,} is the last good one" if kept else "there is no checkpoint"
        return RunError(
            f"training diverged: the {what} is not finite at step {step:,}; {good} in"
            f" {self._checkpoints.directory}; try a lower learning rate or clipping, and check"
            " that labels and task numbers are in range"
        )


@contextlib.contextmanager
def open_run(experiment: str, config: Any, *, label: str = "") -> Iterator[Run]:
    """Opens, or makes, the run directory of a configuration, and locks it.

    `config` is a dataclass with the fields `steps` and `run: RunFlags`; these may change on resume,
    everything else is the run's identity: of a field `init_from`, what the weights there are. A
    run whose body raises InputError before anything is stored leaves no configuration.

    Raises:
        InputError: if the directory holds a run of another configuration, or one that has done more
            steps, or a flag is wrong, or `init_from` holds no weights.
        RunError: if it is in use, or cannot be written.
    """
    flags: RunFlags = config.run
    at_least(flags, 1, "log_every")
    at_least(flags, 0, "save_minutes")
    parallel.count_devices(flags.devices)
    weights = digest_of_start(config)
    directory = identity.directory(experiment, config, label, weights)

    @functools.cache  # once, by whichever part goes on first
    def record() -> None:
        if parallel.is_first():
            identity.record_config(directory, config, weights)

    known = True
    with contextlib.ExitStack() as stack:
        if parallel.is_first():
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(identity.locked(directory))
            known = identity.check_config(directory, config, weights)
            stack.enter_context(identity.forgotten_if_refused(directory))
        signals = stack.enter_context(caught_signals())
        run = Run(directory, flags, config.steps, signals, on_resume=record)
        stack.callback(run.close)
        run.result()  # refuses fewer steps than are done
        if not known:
            record()
        yield run
