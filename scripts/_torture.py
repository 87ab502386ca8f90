"""Kills of runs at random moments, and faults of disks and files; `scripts/torture` calls it.

Each experiment runs once to its end, in tiny. Then it starts again in another folder, and SIGKILL
ends it at a random moment: in compilation, training, a save, the test or a picture. The same
command goes on, is killed again, and so on, until it ends by itself. `_stored.py` says what must
then equal the first run, bit for bit, and what need not. `_faults.py` has the faults.
"""

import argparse
import math
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import _faults
import _stored

from jaxdl.report import tables

TWO = ["--seeds", "2", "--log-every", "3"]
HELD_OUT = [*TWO, "--steps", "24", "--eval-every", "6", "--validation", "10", "--batch", "4"]
FEW_LABELS = [*TWO, "--data", "digits", "--counts", "1", "0", "--steps", "12", "--batch", "10"]
FEW_LABELS += ["--source-steps", "12", "--meta-steps", "6", "--tasks", "2", "--eval-every", "6"]
TINY: dict[str, list[str]] = {
    "airbench": [*HELD_OUT, "--dtype", "float32"],
    "capacity": [*TWO, "--data", "digits", "--steps", "24", "--widths", "4", "8"],
    "cifar10": HELD_OUT,
    "continual": [
        *[*TWO, "--images", "digits", "--methods", "er", "--tasks", "3"],
        *["--examples", "12", "--memories", "12"],
    ],
    "dqn": [
        *[*TWO, "--steps", "60", "--eval-every", "15", "--memories", "short"],
        *["--capacity", "200", "--short", "50", "--prefill", "40", "--batch", "8"],
        *["--hidden", "8", "--episodes", "2", "--decay-steps", "60"],
    ],
    "few_shot": [
        *[*TWO, "--steps", "24", "--eval-every", "6", "--filters", "4", "--tasks", "2"],
        *["--eval-episodes", "4", "--test-episodes", "8", "--pretraining-steps", "9"],
    ],
    "limited_data": [*FEW_LABELS, "--rates", "0.003"],
    "long_memory": [*HELD_OUT, "--hidden", "4", "--cell", "lstm", "--length", "5", "--test", "20"],
    "many_questions": [*HELD_OUT, "--methods", "equal"],
    "mnist": [*HELD_OUT, "--hidden", "8"],
    "multitask": [*HELD_OUT, "--methods", "equal", "pcgrad", "--probes", "2"],
    "navigation": [
        *[*TWO, "--steps", "6", "--eval-every", "3", "--tasks", "2", "--trajectories", "2"],
        *["--hidden", "4", "--test-tasks", "2", "--test-trajectories", "2"],
    ],
    "regression_1d": [*TWO, "--steps", "24", "--tasks", "2", "--test-tasks", "4", "--width", "4"],
    "regression_2d": [
        *[*TWO, "--steps", "24", "--tasks", "2", "--test-tasks", "4", "--width", "4"],
        *["--points", "9", "--context", "5"],
    ],
    "sequences": [*HELD_OUT, "--hidden", "4", "--cell", "rnn"],
    "sinusoid": [*TWO, "--steps", "24", "--tasks", "2", "--test-tasks", "4"],
    "tabular": [
        *[*TWO, "--steps", "24", "--eval-every", "6", "--tasks", "1", "--sizes", "1"],
        *["--features", "10", "--shots", "12", "--least-shots", "10", "--queries", "2"],
        *["--width", "4", "--layers", "1", "--validation-tasks", "2", "--splits", "2"],
        *["--members", "1"],
    ],
    "transfer": [*FEW_LABELS, "--rates", "0.003", "--stage", "6"],
}
"""Flags with which an experiment takes seconds, and yet saves and validates several times."""

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
"""Most of the time goes into compiling, and these programs are tiny."""
IMPORTED = ["matplotlib.pyplot", "orbax.checkpoint", "optax", "scipy.stats", "sklearn.datasets"]
"""What every start would import for seconds, before it has anything to lose."""
SERVER = multiprocessing.get_context("forkserver")
"""It forks processes from one that has imported, and never started JAX's devices."""


class Command(NamedTuple):
    """The command of an experiment with the prepared data in a folder."""

    name: str
    data: Path
    cache: Path
    """Of compiled programs, which all starts share."""

    def arguments(self, runs: Path) -> list[str]:
        """Its flags. Its run is `runs`/experiment/run."""
        flags = [*TINY[self.name], "--runs-dir", str(runs), "--name", "run"]
        return [*flags, "--save-minutes", "0", "--devices", "1"]

    def whole(self, folder: Path) -> Path:
        """The run that is never stopped. No two experiments share the folder, because one that was
        split off another one looks for its runs in both places."""
        return folder / f"{self.name}-whole" / self.name / "run"

    def words(self, runs: Path) -> list[str]:
        """The command itself."""
        return [sys.executable, "-P", "-m", f"experiments.{self.name}", *self.arguments(runs)]

    def environment(self) -> dict[str, str]:
        """What it reads beside its flags."""
        return {**ENVIRONMENT, "JAXDL_DATA": str(self.data), "JAXDL_XLA_CACHE": str(self.cache)}

    def run(self, runs: Path, log: Path) -> int:
        """Runs it to its end as a user does. Its exit code; what it says goes to `log`."""
        with log.open("ab") as file:
            return subprocess.run(
                self.words(runs),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **self.environment()},
            ).returncode

    def start(self, runs: Path, log: Path) -> ForkServerProcess:
        """Starts it in a process that has imported already."""
        process = SERVER.Process(target=forked, args=(self, runs, log))
        process.start()
        return process


def forked(command: Command, runs: Path, log: Path) -> None:
    """What `python -m` does, with standard output and error in `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(command.environment())
    module = f"experiments.{command.name}"
    sys.argv = [module, *command.arguments(runs)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Round(NamedTuple):
    """What a run went through until it ended: kills, starts from a checkpoint, and failures."""

    kills: int
    resumed: int
    failures: tuple[str, ...]


class Tortured(NamedTuple):
    """An experiment, the seconds of a run that is never stopped, and its rounds."""

    name: str
    seconds: float
    rounds: tuple[Round, ...]

    def row(self) -> list[str]:
        """Its row of the table."""
        rounds = self.rounds
        equal = f"{sum(not each.failures for each in rounds)} of {len(rounds)}"
        counts = [sum(each.kills for each in rounds), sum(each.resumed for each in rounds)]
        failures = sum(len(each.failures) for each in rounds)
        return [self.name, f"{self.seconds:.0f} s", *map(str, counts), equal, str(failures)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a run that was killed differs, or a fault ends in no sentence."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=TINY, default=list(TINY), metavar="EXPERIMENT", help="of these"
    )
    parser.add_argument("--no-faults", action="store_true", help="kill only")
    given = parser.parse_args(arguments)
    draw = random.Random(given.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that disks are unmounted
    os.environ.update(ENVIRONMENT)
    SERVER.set_forkserver_preload([*IMPORTED, *(f"experiments.{name}" for name in given.only)])
    with tempfile.TemporaryDirectory(prefix="jaxdl-torture-") as temporary:
        folder = Path(temporary)
        data = noise(folder / "data")
        commands = [Command(name, data, folder / "xla" / name) for name in given.only]
        whole = [uninterrupted(command, folder) for command in commands]
        found = []
        kills_of = shares(given.kills, whole)
        for command, seconds, kills in zip(commands, whole, kills_of, strict=True):
            found.append(tortured(command, kills, folder, draw, seconds))
            for each in found[-1].rounds:
                print(*each.failures, sep="\n", end="\n" * bool(each.failures), file=sys.stderr)
            print(" | ".join(found[-1].row()), file=sys.stderr, flush=True)
        quickest = min(zip(whole, given.only, commands, strict=True))[2]
        faults = [] if given.no_faults else _faults.tried(quickest, folder)
    header = ["experiment", "one run", "kills", "resumed", "equal", "failures"]
    total = Tortured(
        "all", sum(e.seconds for e in found), tuple(r for e in found for r in e.rounds)
    )
    print(tables.markdown(header, [each.row() for each in [*found, total]]), end="\n\n")
    if faults:
        print(_faults.table(quickest.name, faults))
    return int(any(e.failures for e in total.rounds) or any(e.failure for e in faults))


def noise(folder: Path) -> Path:
    """Prepared MNIST and CIFAR-10 of a few images of noise, as the tests make them."""
    from jaxdl.data.prepare import tfds
    from tests.data.prepare import publishers

    published = folder / "published"
    for made in (publishers.mnist, publishers.cifar):
        source = made(published, train=40, test=12)[0]
        tfds.prepare(source, folder, from_dir=published, say=lambda line: None)
    return folder


def shares(kills: int, seconds: Sequence[float]) -> list[int]:
    """How many kills each experiment has: a third of them evenly, the rest by how quick it is.

    >>> shares(12, [10.0, 20.0])
    [7, 5]
    """
    quick = [1 / each for each in seconds]
    parts = [(1 / len(quick) + 2 * each / sum(quick)) / 3 for each in quick]
    ends = [round(kills * sum(parts[: n + 1])) for n in range(len(parts))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def uninterrupted(command: Command, folder: Path) -> float:
    """The seconds of a run that is never stopped, which is in `command.whole(folder)`."""
    began = time.monotonic()
    log = folder / f"{command.name}.log"
    if code := command.run(command.whole(folder).parents[1], log):
        said = log.read_text(errors="replace")[-3000:]
        print(f"{command.name} ended with code {code}:\n{said}", file=sys.stderr)
        return math.inf
    seconds = time.monotonic() - began
    print(f"{command.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return seconds


def tortured(
    command: Command, kills: int, folder: Path, draw: random.Random, seconds: float
) -> Tortured:
    """Runs that are killed `kills` times in all, each beside the one that was never stopped."""
    if seconds == math.inf:
        return Tortured(command.name, seconds, (Round(0, 0, ("the run that nobody kills fails",)),))
    whole = command.whole(folder)
    changes, rounds = len(files(whole)), list[Round]()
    while (left := kills - sum(each.kills for each in rounds)) > 0:
        runs = folder / f"{command.name}-{len(rounds)}"
        rounds.append(one_round(command, left, runs, draw, seconds, changes, whole))
    return Tortured(command.name, seconds, tuple(rounds))


def one_round(
    command: Command,
    most: int,
    runs: Path,
    draw: random.Random,
    seconds: float,
    changes: int,
    whole: Path,
) -> Round:
    """Kills a run up to `most` times, until it ends by itself."""
    run, failures, done, resumed = runs / command.name / "run", list[str](), 0, 0
    while True:
        log = runs.with_suffix(f".{done}.log")
        process = command.start(runs, log)
        if done < most:
            # Most moments follow a change of the run's files, because saves are short.
            if draw.random() < 0.4:
                wait_for(process, seconds=draw.uniform(0, 0.7 * seconds))
            else:
                wait_for(process, run=run, changes=draw.randint(1, 2 * changes))
                time.sleep(draw.uniform(0, 0.03))
            if process.is_alive():
                process.kill()
                process.join()
                resumed += has_resumed(log)
                done += 1
                continue
        process.join()
        break
    if process.exitcode:
        failures.append(f"{runs.name}: exit code {process.exitcode}")
    text = "".join(each.read_text() for each in sorted(runs.parent.glob(f"{runs.name}.*.log")))
    if "Traceback" in text or failures:
        failures.append(f"{runs.name}: its log ends in\n{text[-3000:]}")
    failures += [f"{runs.name}: {name} differs" for name in _stored.differences(whole, run)]
    return Round(done, resumed + has_resumed(log), tuple(failures))


def has_resumed(log: Path) -> bool:
    """Whether a process went on from a checkpoint."""
    return log.exists() and "\nresuming " in "\n" + log.read_text(errors="replace")


def wait_for(
    process: ForkServerProcess,
    *,
    seconds: float = 3600.0,
    run: Path | None = None,
    changes: int = 1,
) -> None:
    """Waits for some seconds, or until a run's files changed so often, or the process has ended."""
    end, before = time.monotonic() + seconds, files(run) if run else {}
    while changes and time.monotonic() < end and process.is_alive():
        time.sleep(0.005)
        if run and (now := files(run)) != before:
            changes, before = changes - 1, now


def files(run: Path) -> dict[str, int]:
    """The names below a folder, with the sizes of files."""
    found, folders = dict[str, int](), [str(run)]
    while folders:
        try:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                found[entry.path] = entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
