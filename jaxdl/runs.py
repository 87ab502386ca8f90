"""A run is a directory: configuration, metrics, checkpoints, pictures and result of one experiment.

    runs/<experiment>/<name>/
        config.yaml     the configuration, and the code, packages and device that ran it
        metrics.jsonl   one line a log point
        checkpoints/    what the next step needs; the newest two
        best/           parameters that were best on validation, one step per seed
        result.json     written last: a run that has one is finished
        *.png           pictures

The same command again resumes a run that was stopped, and reprints the result of a finished one.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import yaml

from jaxdl import parallel
from jaxdl.checkpoint import Checkpoints
from jaxdl.errors import InputError, RunError
from jaxdl.files import plain, read_json, write_text, writing
from jaxdl.provenance import provenance
from jaxdl.types import Params

Config = TypeVar("Config")


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


class Interrupted(RunError):
    """A signal stopped the run after it was saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # the shell's convention


class Run:
    """An open run directory. `open_run` makes one; see the module docstring for its files."""

    def __init__(self, directory: Path, flags: RunFlags, steps: int, signals: "_Signals") -> None:
        self.directory = directory
        self.flags = flags
        self.steps = steps
        self.compile_seconds = 0.0
        self._signals = signals
        self._parts: dict[str, Run] = {}
        self._began = time.perf_counter()
        self._before = 0.0
        self._checkpoints = Checkpoints(directory / "checkpoints")
        self._best = Checkpoints(directory / "best", keep=1)
        self._step = 0
        self._board: Any = None

    def part(self, name: str, steps: int | None = None) -> "Run":
        """A training inside this run, a baseline say, with a directory of its own inside."""
        if name not in self._parts:
            directory = self.directory / name
            with writing(directory):
                directory.mkdir(exist_ok=True)
            self._parts[name] = Run(directory, self.flags, steps or self.steps, self._signals)
        return self._parts[name]

    def close(self) -> None:
        """Waits for what is being written."""
        for part in self._parts.values():
            part.close()
        with self._checkpoints, self._best:
            if self._board is not None:
                self._board.close()

    # ---- results

    def result(self) -> dict[str, Any] | None:
        """The result of the finished run, None if it has still steps to do."""
        path = self.directory / "result.json"
        if not path.exists():
            return None
        found = read_json(path)
        done = int(found["run"]["steps"])
        if done > self.steps:
            raise InputError(
                f"{self.directory} has already done {done} steps, more than --steps {self.steps};"
                " choose another --name for a shorter run"
            )
        return found if done == self.steps else None

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes result.json, which marks the run as finished, and returns its content."""
        runs = [self, *self._parts.values()]
        # Time spent before a resume counts: what earlier processes noted in the checkpoints.
        wall = sum(run._before for run in runs) + time.perf_counter() - self._began
        full = dict(result)
        full["run"] = {
            "directory": str(self.directory),
            "steps": self.steps,
            "wall_seconds": round(wall, 1),
            "compile_seconds": round(sum(run.compile_seconds for run in runs), 1),
            **provenance(),
        }
        self._checkpoints.wait()
        self._best.wait()
        if parallel.is_first():
            write_text(self.directory / "result.json", json.dumps(plain(full), indent=2) + "\n")
        return full

    # ---- state

    def restore(self, state: Any) -> Any:
        """The newest checkpoint, or `state` itself in a run that has none.

        Raises:
            RunError: if the checkpoint is damaged.
        """
        steps = self._checkpoints.steps()
        if not steps:
            self._cut_metrics(0)
            return state
        restored, self._before = self._checkpoints.restore((state, np.float64(0.0)))
        self._before = float(self._before)
        self._step = int(restored.step)
        if self._step > self.steps:
            raise InputError(
                f"{self.directory} has already done {self._step} steps, more than"
                f" --steps {self.steps}; choose another --name for a shorter run"
            )
        self._cut_metrics(self._step)
        say(f"resuming {self.directory} from step {self._step:,}")
        return restored

    def save(self, state: Any) -> None:
        """Saves a checkpoint of the state at its step, in the background."""
        state = parallel.local(state)
        elapsed = self._before + time.perf_counter() - self._began
        self._checkpoints.save(int(state.step), (state, np.float64(elapsed)))

    def keep_best(self, step: int, scores: Any, params: Params) -> None:
        """Keeps, for each seed, the parameters with the highest score so far.

        `scores` is `[seeds]`; the leaves of `params` have a leading axis `[seeds]`.
        """
        scores, params = np.asarray(scores, np.float64), parallel.local(params)
        found = self._best.steps()
        now = {"score": scores, "step": np.full(scores.shape, step), "params": params}
        if found:
            best = self._best.restore(now)
            better = scores > np.asarray(best["score"])
            if not better.any() or found[-1] >= step:
                return
            now = jax.tree.map(
                lambda new, old: np.where(better.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old),
                now,
                best,
            )
        self._best.save(step, now)
        self._best.wait()

    def best(self, params: Params) -> tuple[Params, np.ndarray]:
        """The best parameters of each seed and the steps they come from; needs `keep_best`."""
        return load_best(self.directory, params)

    # ---- the loop

    def follow(
        self, chunks: Iterable[tuple[int, Any, dict[str, np.ndarray]]], *, tasks: int
    ) -> Iterator[tuple[int, Any]]:
        """Passes on `(i, state)` at every log point, and does what a long run needs meanwhile.

        Progress with rate and time left, metrics.jsonl, checkpoints by the clock and at the end,
        an answer to Ctrl-C and SIGTERM between two chunks, and a stop at the first loss that is not
        finite. `tasks` is how many tasks a step takes, for the rate.

        Raises:
            Interrupted: after saving, when a signal came.
            RunError: when training diverged or a checkpoint could not be written.
        """
        window: list[dict[str, np.ndarray]] = []
        saved, rate = time.monotonic(), _Rate(self._step)
        with self._signals.deferred():
            for i, state, metrics in chunks:
                self._check_finite(i, metrics)
                window.append(metrics)
                self._step = i
                done = i == self.steps
                means = _means(window)
                self._progress(i, rate.at(i), tasks, means)
                if i % self.flags.log_every == 0 or done:
                    window = []
                    self.log(i, "train", means)
                    yield i, state
                stopped = parallel.anyone(self._signals.came)
                due = time.monotonic() - saved > 60 * self.flags.save_minutes
                if parallel.agree(int(due)) or stopped or done:
                    self._save_if_finite(i, state)
                    saved = time.monotonic()
                if stopped and not done:
                    self._checkpoints.wait()
                    raise self._signals.interrupted(
                        f"saved at step {i:,} of {self.steps:,}; the same command resumes"
                        f" {self.directory}"
                    )

    def last(self, chunks: Any, state: Any, *, tasks: int) -> Any:
        """Follows to the end and returns the last state; `state` if there is nothing left to do."""
        for _, state in self.follow(chunks, tasks=tasks):  # noqa: B007
            pass
        return state

    def compiled(self, seconds: float) -> None:
        """Notes how long compilation took; pass it to `loop` as `on_compile`."""
        self.compile_seconds += seconds
        say(f"compiled in {seconds:.1f} s")

    def log(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends a line of metrics (numbers, or one number a seed) to metrics.jsonl."""
        if not parallel.is_first():
            return
        line = {"step": step, "split": split, **plain(metrics)}
        with writing(self.directory / "metrics.jsonl") as path, path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is None and self.flags.tensorboard:
            self._board = _summary_writer(self.directory)
        if self._board is not None:
            for name, values in metrics.items():
                self._board.add_scalar(f"{split}/{name}", float(np.mean(values)), step)

    def metrics(self, split: str) -> dict[str, np.ndarray]:
        """The lines of one split as arrays: `step` `[lines]`, the others `[lines, seeds]`."""
        path = self.directory / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [line for line in lines if line.pop("split") == split]
        names = lines[0] if lines else ()
        return {name: np.asarray([line[name] for line in lines]) for name in names}

    def picture(self, name: str, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
        """Saves `name`.png, drawn by `draw(figure)` on a figure of `size` inches.

        Without Matplotlib (a cluster node) it says so and goes on.
        """
        if not parallel.is_first():
            return
        try:
            from matplotlib.figure import Figure
        except ImportError:
            say(f"no {name}.png: Matplotlib is not installed")
            return
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        with writing(self.directory / f"{name}.png") as path:
            figure.savefig(path, dpi=150)
        say(f"picture {self.directory / name}.png")

    # ---- what the methods above share

    def _save_if_finite(self, step: int, state: Any) -> None:
        for leaf in jax.tree.leaves(parallel.local(state)):
            if not np.isfinite(np.asarray(leaf)).all():
                raise self._diverged(step, "parameters")
        self.save(state)

    def _check_finite(self, i: int, metrics: dict[str, np.ndarray]) -> None:
        for name, values in metrics.items():
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                seed, offset = min(bad.tolist(), key=lambda place: place[1])
                raise self._diverged(i - values.shape[1] + offset, f"{name} of seed {seed}")

    def _diverged(self, step: int, what: str) -> RunError:
        self._checkpoints.wait()
        kept = self._checkpoints.steps()
        good = f"checkpoint {kept[-1]:,} is the last good one" if kept else "there is no checkpoint"
        return RunError(
            f"training diverged: the {what} is not finite at step {step:,}; {good} in"
            f" {self._checkpoints.directory}; a lower learning rate or clipping may help"
        )

    def _cut_metrics(self, step: int) -> None:
        """Drops the lines after `step`: resuming writes them again."""
        path = self.directory / "metrics.jsonl"
        if not parallel.is_first() or not path.exists():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        write_text(path, "".join(line + "\n" for line in kept))

    def _progress(self, i: int, rate: float, tasks: int, means: Mapping[str, Any]) -> None:
        at_log_point = i % self.flags.log_every == 0 or i == self.steps
        terminal = sys.stderr.isatty()
        if not parallel.is_first() or not (at_log_point or terminal):
            return
        left = (self.steps - i) / max(rate, 1e-9)
        values = "  ".join(f"{name} {np.mean(value):.4f}" for name, value in means.items())
        line = (
            f"step {i:>{len(f'{self.steps:,}')},}/{self.steps:,}  {rate * tasks:,.0f} tasks/s  "
            f"{values}  {_clock(left)} left"
        )
        if terminal:
            print(
                f"\r\033[K{line}", end="" if i < self.steps else "\n", file=sys.stderr, flush=True
            )
        else:
            say(line)


@contextlib.contextmanager
def open_run(experiment: str, config: Any, *, label: str = "") -> Iterator[Run]:
    """Opens, or makes, the run directory of a configuration, and locks it.

    `config` is a dataclass with the fields `steps` and `run: RunFlags`; these may change on resume,
    everything else is the run's identity.

    Raises:
        InputError: if the directory holds a run of another configuration.
        RunError: if it is in use, or cannot be written.
    """
    flags: RunFlags = config.run
    identity = _identity(config)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    name = flags.name or "-".join(part for part in (label, digest) if part)
    if Path(name).name != name or name in (".", ".."):
        raise InputError(f"--name {name!r} must be a plain directory name")
    directory = flags.runs_dir / experiment / name
    if flags.log_every < 1:
        raise InputError(f"--log-every {flags.log_every}: choose at least 1")
    with contextlib.ExitStack() as stack:
        if parallel.is_first():
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(directory))
            _check_config(directory / "config.yaml", identity, config)
        run = Run(directory, flags, config.steps, stack.enter_context(_caught_signals()))
        stack.callback(run.close)
        yield run


def load_config(directory: Path, kind: type[Config]) -> Config:
    """The configuration of a run, as the dataclass `kind` of its experiment.

    Raises:
        InputError: if there is no run.
        RunError: if its configuration is damaged, or of another experiment.
    """
    if not (directory / "config.yaml").is_file():
        raise InputError(f"there is no run in {directory}: it has no config.yaml")
    found = _recorded_config(directory / "config.yaml")
    try:
        return kind(**{key: value for key, value in found.items() if key != "run"})
    except TypeError as error:
        raise RunError(f"{directory} is not a run of this experiment: {error}") from error


def load_best(directory: Path, like: Params) -> tuple[Params, np.ndarray]:
    """The parameters of a run that were best on validation, and their steps `[seeds]`.

    `like` has the structure and shapes, leading axis `[seeds]` included.

    Raises:
        RunError: if there are none, or they are damaged.
    """
    seeds = jax.tree.leaves(like)[0].shape[0]
    target = {"score": np.zeros(seeds), "step": np.zeros(seeds, int), "params": like}
    with Checkpoints(directory / "best") as checkpoints:
        best = checkpoints.restore(parallel.local(target))
    return best["params"], np.asarray(best["step"])


class _Signals:
    """Ctrl-C and SIGTERM: deferred while training follows its loop, which asks between chunks."""

    def __init__(self) -> None:
        self._number = 0
        self._depth = 0

    @property
    def came(self) -> bool:
        return self._number != 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def handle(self, number: int, frame: Any) -> None:
        del frame
        impatient, self._number = self.came, number
        if impatient or not self._depth:
            raise self.interrupted("the same command goes on from the last checkpoint")
        say("stopping after this chunk; once more to stop at once")

    def interrupted(self, what: str) -> Interrupted:
        number = self._number or signal.SIGTERM  # another process may have been told
        return Interrupted(f"stopped by {signal.Signals(number).name}: {what}", number)


@contextlib.contextmanager
def _caught_signals() -> Iterator[_Signals]:
    signals, before = _Signals(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            before[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Rate:
    """Steps a second over the last 20 seconds or so: the first steps are not typical."""

    def __init__(self, step: int) -> None:
        self._marks = [(time.perf_counter(), step)]

    def at(self, step: int) -> float:
        now = time.perf_counter()
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > 20:
            self._marks.pop(0)
        then, before = self._marks[0]
        return (step - before) / max(now - then, 1e-9)


def _means(window: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over the steps of some chunks, one number a seed."""
    return {
        name: np.concatenate([chunk[name] for chunk in window], 1).mean(1, dtype=np.float64)
        for name in window[0]
    }


def _identity(config: Any) -> dict[str, Any]:
    """The part of a configuration that decides the numbers of a run."""
    everything = plain(config)
    return {key: value for key, value in everything.items() if key not in ("steps", "run")}


def _check_config(path: Path, identity: dict[str, Any], config: Any) -> None:
    """Compares with the run that is there; writes config.yaml where there is none."""
    if path.exists():
        found = _recorded_config(path)
        for key in sorted(set(identity) | (set(found) - {"steps", "run"})):
            if found.get(key) != identity.get(key):
                flag = "--" + key.replace("_", "-")
                raise InputError(
                    f"{path.parent} was made with {flag} {found.get(key)}, not"
                    f" {identity.get(key)}; only steps and run flags may change on resume:"
                    " choose another --name"
                )
    record = {"config": plain(config), "made_by": provenance()}
    write_text(path, yaml.safe_dump(record, sort_keys=False))


def _recorded_config(path: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(path.read_text())["config"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}); choose another --name"
        ) from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the run directory; the lock ends with the process, however it ends."""
    path = directory / "lock"
    with writing(path):
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunError(
                f"{directory} is in use by process {file.read().strip() or 'unknown'};"
                " wait for it, or choose another --name"
            ) from error
        file.truncate(0)
        with writing(path):
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # half a line, from a process that was killed while writing it


def _summary_writer(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs the package tensorboardX: pip install 'jaxdl[tensorboard]'"
        ) from error
    return SummaryWriter(str(directory))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(line: str) -> None:
    """Tells a person something, on standard error; results go to standard output."""
    if parallel.is_first():
        print(line, file=sys.stderr, flush=True)
