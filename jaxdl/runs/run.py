"""A run is a directory: configuration, metrics, checkpoints, pictures and result of one experiment.

    runs/<experiment>/<name>/
        config.yaml     the configuration, and the code, packages and device that ran it
        metrics.jsonl   one line per log point
        seconds.jsonl   the time that each log point took
        checkpoints/    the state of the training; the newest two
        best/           the best parameters on validation, for each seed, and their steps
        result.json     written last: the result after the last step
        *.png           pictures
        report.html     all of this on one page

The same command resumes a run that was stopped, and reprints the result of a finished run.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError, damaged
from jaxdl.files.atomic import plain, read_json, write_text, writing
from jaxdl.report import pictures
from jaxdl.runs import identity
from jaxdl.runs.best import Best, lowest_is_best, refuse_statistics, validation
from jaxdl.runs.config import RunFlags, check, check_eval_every
from jaxdl.runs.identity import NO_FILES, Contents, Former, load_config
from jaxdl.runs.page import numbers, write_page
from jaxdl.runs.program import tell_other_program
from jaxdl.runs.progress import say
from jaxdl.runs.provenance import peak_bytes, provenance
from jaxdl.runs.signals import Interrupted, Signals, caught_signals
from jaxdl.runs.stored import load_best
from jaxdl.runs.supervise import Training
from jaxdl.runs.weights import digest_of_start
from jaxdl.train.feed import HostStream
from jaxdl.train.loop import loop
from jaxdl.types import Key, Params, PyTree, StepFn, Stream

__all__ = ["Interrupted", "Run", "RunFlags", "load_config", "open_run", "say"]


class Run:
    """An open run directory. `open_run` makes one; see the module docstring for its files.

    >>> import dataclasses, jaxdl, pathlib, tempfile
    >>> Config = dataclasses.make_dataclass("Config", ["steps", "run"])
    >>> def heads(run: jaxdl.Run) -> int:  # computed once, however often the run is opened
    ...     return (run.result() or run.finish({"heads": 12}))["heads"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = Config(20, jaxdl.RunFlags(name="first", runs_dir=pathlib.Path(folder)))
    ...     with jaxdl.open_run("coin", config) as run:
    ...         heads(run), run.result()["run"]["steps"], (run.directory / "result.json").exists()
    (12, 20, True)
    """

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
        self._training = Training(directory, flags, steps, signals)
        self._best = Best(directory / "best")
        self._on_resume = on_resume
        self._part = part
        self._parts: dict[str, Run] = {}
        self._finished: dict[str, Any] | None = None  # what `finish` stored, in any process
        self._has_page = True  # until `finish` stores what it lacks

    def part(self, name: str, steps: int | None = None) -> "Run":
        """A training inside this run, such as a baseline, with its own directory inside."""
        if name not in self._parts:
            directory = self.directory / name
            with writing(directory):
                directory.mkdir(exist_ok=True)
            signals = self._training.signals
            inner = Run(directory, self.flags, steps or self.steps, signals, part=name)
            if steps is None:  # the part has the steps of the configuration
                inner._on_resume = self._on_resume
            self._parts[name] = inner
        return self._parts[name]

    def close(self) -> None:
        """Waits for all writes."""
        with contextlib.ExitStack() as stack:  # closes all, even if one fails
            for part in self._parts.values():
                stack.callback(part.close)
            stack.callback(self._training.checkpoints.close)
            stack.callback(self._best.close)
            stack.callback(self._training.journal.close)

    # ---- results

    def result(self) -> dict[str, Any] | None:
        """The result of the finished run; None if the run has steps left.

        Raises:
            InputError: if the run has done more steps than `steps`.
            RunError: if result.json is damaged.
        """
        found, done = None, 0
        path = self.directory / "result.json"
        if path.exists():
            found = read_json(path)
            try:
                done = int(found["run"]["steps"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                fault = "it does not say how many steps its run has"
                raise damaged(path, fault, "Move it away to go on") from error
            if done == self.steps:
                return found
        self._training.refuse_fewer_than(max([done, *self._training.checkpoints.steps()]))
        return None

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes result.json, which marks the run as finished, and returns its content."""
        all_of_it = [run._training for run in (self, *self._parts.values())]
        # Time before a resume counts too: earlier processes noted it in the checkpoints.
        before = sum(training.seconds for training in all_of_it[1:])
        wall = before + self._training.elapsed()
        about = {
            "directory": self.directory,
            "steps": self.steps,
            "wall_seconds": round(wall, 1),
            "compile_seconds": round(sum(training.compile_seconds for training in all_of_it), 1),
            "peak_bytes": peak_bytes(),
            **provenance(),
        }
        full: dict[str, Any] = plain({**result, "run": about})
        for training in all_of_it:
            training.checkpoints.wait()
        if parallel.is_first():
            write_text(self.directory / "result.json", json.dumps(full, indent=2) + "\n")
        self._finished, self._has_page = full, False
        return full

    def page(self, report: str = "") -> None:
        """Writes report.html: `report`, the curves and pictures of the run, and its settings.

        `open_run` calls it at the end for a run that has just finished and did not call it itself.

        Args:
            report: lines of text and Markdown tables. By default, the numbers of the result.

        Raises:
            InputError: if the run has steps left, or its result is not stored yet.
        """
        if (result := self._finished or self.result()) is None:
            raise InputError("a run has a page after its end. Call run.finish before run.page")
        write_page(self.directory, report or numbers(result), result)
        self._has_page = True

    # ---- state

    def restore(self, state: PyTree) -> Any:
        """The newest checkpoint, or `state` itself if the run has none.

        Log lines and best parameters after the checkpoint are dropped, because the run makes them
        again.

        Raises:
            InputError: if the checkpoint is later than the run's last step.
            RunError: if the checkpoint is damaged.
        """
        begun = bool(self._training.checkpoints.steps())
        restored = self._training.restore(state)
        self._on_resume()
        self._training.forget_lines_to_come()
        self._forget(lambda step: step <= self._training.step)
        if begun:
            say(f"resuming {self.directory} from step {self._training.step:,}")
        return restored

    def keep_best(self, step: int, scores: Any, params: Params) -> None:
        """Keeps, for each seed, the parameters with the highest score so far; NaN is the lowest.

        `scores` is `[seeds]`; the leaves of `params` have a leading axis `[seeds]`.

        Raises:
            RunError: if they could not be written.
        """
        if parallel.is_first():
            self._training.checkpoints.wait()  # so that `steps` counts a save in progress
            kept = self._training.checkpoints.steps()
            self._best.keep(step, np.asarray(scores), parallel.local(params), kept)
        parallel.agree(step)  # a barrier: no process reads before the first has written

    def best(self, params: Params) -> tuple[Params, np.ndarray]:
        """The best parameters of each seed and their steps, as `keep_best` stored them."""
        self._training.signals.look()
        return load_best(self.directory, params)

    # ---- the loop

    def train(
        self,
        step: StepFn,
        stream: Stream | HostStream,
        keys: Key,
        state: PyTree,
        *,
        validate: Callable[[Any], Mapping[str, Any]] | None = None,
        eval_every: int | None = None,
        best: str = "",
        devices: int = 1,
    ) -> Any:
        """The state after the last step, on one device; `state` if nothing is left to do.

        Args:
            validate: `state -> metrics [seeds]`, a dict. It runs every `eval_every` steps and after
                the last step. Its results are the "validation" lines of metrics.jsonl.
            eval_every: a multiple of the flag `log_every`. None validates after the last step
                alone.
            best: the metric by which `keep_best` chooses parameters; "" keeps none. The lowest
                value is the best if a word of its name says so, as in `query_loss`,
                `squared_error` or `nll`: see `runs.best.ERRORS`. Else the highest is.
            devices: how many devices share the tasks or examples of a step.

        Raises:
            InputError: if `eval_every` is no multiple of `log_every`, if what `validate` found is
                no dict, or has no `best`, or if the state has running statistics, which `best`
                would not keep.
        """
        if best and validate is not None:
            refuse_statistics(state, best)
        last, given = state, (step, stream, keys, state)
        if validate is None:
            points = self.log_points(*given, devices=devices)
        else:
            points = self.evaluation_points(
                *given,
                split="validation",
                every=eval_every,
                devices=devices,
            )
        for i, last in points:
            if validate is None:
                continue
            here = parallel.local(last)
            found = validation(validate(here), best)
            self.validated(i, found, best, here.params)
            shown = ", ".join(f"{name} {values.mean():.4f}" for name, values in found.items())
            say(f"{self._part}{', ' * bool(self._part)}step {i:,}  validation {shown}")
        return parallel.local(last)

    def validated(self, i: int, found: Mapping[str, np.ndarray], best: str, params: Params) -> None:
        """Logs what a validation found, `[seeds]`, and keeps the best; `best` is as in `train`."""
        if best:  # before the log line: the line marks this validation as complete
            self.keep_best(i, -found[best] if lowest_is_best(best) else found[best], params)
        self.log(i, "validation", found)

    def log_points(
        self,
        step: StepFn,
        stream: Stream | HostStream,
        keys: Key,
        state: PyTree,
        *,
        devices: int = 1,
    ) -> Iterator[tuple[int, Any]]:
        """`train.loop` up to the run's last step, inside `watch`; see both."""
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
        yield from self.watch(chunks)

    def evaluation_points(
        self,
        step: StepFn,
        stream: Stream | HostStream,
        keys: Key,
        state: PyTree,
        *,
        split: str,
        every: int | None,
        devices: int = 1,
    ) -> Iterator[tuple[int, Any]]:
        """The log points at multiples of `every`, and the last one.

        `every` is a multiple of `log_every`, or at least `steps`; None is the last point alone. The
        caller writes a line of `split` at each of these points. `steps` may have changed since the
        last start:

        - The old last step may be no multiple of `every`. Its log lines and best parameters go.
        - The new last step may be done already, without a line of `split`. It is yielded again.
        """

        due, missing = self.evaluations(split, every)
        if parallel.agree(int(missing)):
            yield self.steps, state
        points = self.log_points(step, stream, keys, state, devices=devices)
        yield from ((i, now) for i, now in points if due(i))

    def evaluations(self, split: str, every: int | None) -> tuple[Callable[[int], bool], bool]:
        """Which steps are evaluated, and whether the last one is done and waits for it.

        Lines and best parameters of other steps go.

        Raises:
            InputError: if `every` is below `steps` and no multiple of `log_every`.
        """
        often = self.steps if every is None else every
        if often < self.steps:
            check_eval_every(often, self.flags)

        def due(i: int) -> bool:
            return i % often == 0 or i == self.steps

        self._training.journal.select(lambda i, of: of == "train" or due(i))
        self._forget(due)
        done = self._training.step == self.steps
        return due, done and self.steps not in self.metrics(split).get("step", ())

    def watch(
        self, chunks: Iterable[tuple[int, Any, dict[str, np.ndarray]]]
    ) -> Iterator[tuple[int, Any]]:
        """`(i, state)` at every log point of your own loop; see `Training.watch`."""
        return self._training.watch(chunks)

    def compiled(self, seconds: float) -> None:
        """Notes how long compilation took; pass it as `on_compile` to your own loop."""
        self._training.signals.look()
        self._training.compiled(seconds)

    def log(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends a line of metrics (numbers, or one number per seed) to metrics.jsonl.

        Args:
            step: of the training, at most its present one. A resume drops lines of later steps,
                because the training comes there again.
            split: a name for lines of one kind, such as "validation".

        Raises:
            InputError: if a metric is called "step" or "split".
        """
        self._training.signals.look()
        self._training.journal.append(step, split, metrics)

    def metrics(self, split: str) -> dict[str, np.ndarray]:
        """The lines of one split as arrays: `step` `[lines]`, the others `[lines, seeds]`."""
        return self._training.journal.read(split)

    def picture(self, name: str, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
        """Saves `name`.png in the run directory, and says so.

        Args:
            draw: draws on the Matplotlib `Figure` that it gets: `lambda figure:
                figure.subplots().plot(x, y)`.
            size: width and height in inches.
        """
        self._training.signals.look()
        if parallel.is_first():
            say(pictures.save(self.directory / f"{name}.png", draw, size=size))

    # ---- what the methods above share

    def _forget(self, counts: Callable[[int], bool]) -> None:
        if parallel.is_first():
            self._best.forget(counts)


@contextlib.contextmanager
def open_run(
    experiment: str,
    config: Any,
    *,
    label: str = "",
    former: Former | None = None,
    contents: Contents = NO_FILES,
    signals: Signals | None = None,
) -> Iterator[Run]:
    """Opens, or makes, the run directory of a configuration, and locks it.

    `config` is a dataclass with the fields `steps` and `run: RunFlags`. These two may change on
    resume; all other fields are the run's identity. For a field `init_from` the weights count, not
    their path. If the body raises InputError before anything is stored, no configuration stays.
    With `former`, runs from before this experiment was split off another one go on. `contents` has
    the digest of each other file that the run depends on, by the field that names the file.
    `signals` are those of a caller that opens several runs; by default the run catches its own.

    >>> import dataclasses, jaxdl, jax.numpy as jnp, optax, pathlib, tempfile
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     steps: int
    ...     run: jaxdl.RunFlags
    ...     lr: float = 0.5
    >>> def train(config):
    ...     tx, keys = optax.sgd(config.lr), jaxdl.run_keys(seed=0, seeds=1)
    ...     grad = lambda key, step, params, batch: (params - batch.mean(), {"at": params})
    ...     with jaxdl.open_run("example", config) as run:
    ...         if (result := run.result()) is not None:
    ...             return result
    ...         state = run.restore(jaxdl.init_states(lambda key: jnp.float32(0), keys, tx))
    ...         stream = jaxdl.task_stream(lambda key: jnp.float32(8), tasks=1)
    ...         state = run.train(jaxdl.make_step(grad, tx), stream, keys, state)
    ...         return run.finish({"params": state.params})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     flags = jaxdl.RunFlags(runs_dir=pathlib.Path(folder), devices=1)
    ...     result = train(Config(4, flags))
    ...     longer = train(Config(5, flags))  # goes on from step 4
    ...     result["params"], longer["params"], train(Config(5, flags)) == longer
    ([7.5], [7.75], True)

    Raises:
        InputError: if the directory holds a run of another configuration, or one with more steps
            done, or if a flag is wrong, or `init_from` holds no weights.
        RunError: if the directory is in use, or cannot be written.
    """
    flags: RunFlags = config.run
    check(flags)
    parallel.count_devices(flags.devices)
    weights = digest_of_start(config)
    contents = {**contents, "init_from": weights} if weights else contents
    directory = identity.directory(experiment, config, label, contents, former)

    @functools.cache  # once, by the part that resumes first
    def record() -> None:
        if parallel.is_first():
            identity.record_config(directory, config, contents, former)

    known = True
    with contextlib.ExitStack() as stack:
        if parallel.is_first():
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(identity.locked(directory))
            known = identity.check_config(directory, config, contents, former)
            if known:
                tell_other_program(directory, identity.made_by(directory))
            stack.enter_context(identity.forgotten_if_refused(directory))
        signals = signals or stack.enter_context(caught_signals())
        run = Run(directory, flags, config.steps, signals, on_resume=record)
        stack.callback(run.close)
        run.result()  # raises if `steps` is below the steps done
        if not known:
            record()
        yield run
        if not run._has_page:
            run.page()
