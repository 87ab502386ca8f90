"""Full disks, read-only folders and damaged files; `_torture.py` calls it.

Each fault meets a run that is new, one that was killed, or a finished one. The command must end in
one sentence, without a traceback, with exit code 1 or 2, or go on to the result of a run without a
fault. Once the fault is mended as the sentence says, the same command must reach that result, too.
`tests/runs/test_fuzz.py` has many more damages, drawn at random.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _stored

from jaxdl.report import tables

Damage = Callable[[bytes], bytes]


class Fault(NamedTuple):
    """A fault, the run that it meets ("new", "killed", "finished"), and the exit codes it may have.

    `at`: a context in which the fault is there, made of the run's directory. It yields words that
        stand before those of the command.
    `mend`: what the user does before the same command goes on.
    """

    name: str
    run: str
    codes: tuple[int, ...]
    at: Callable[[Path], contextlib.AbstractContextManager[Sequence[str]]]
    mend: Callable[[Path], None] = lambda run: None


class Tried(NamedTuple):
    """What a fault ended in: the sentence of the command, and why that is a failure, if it is."""

    fault: str
    run: str
    said: str
    failure: str = ""


class NotPermitted(Exception):
    """This machine does not let this user make the fault."""


def tried(command: Any, folder: Path) -> list[Tried]:
    """All faults, one after another, beside the run that is never stopped."""
    whole = command.whole(folder)
    killed = folder / "killed" / command.name / "run"
    kill_after_two_checkpoints(command, folder / "killed", folder / "killed.log")
    bases = {"new": None, "killed": killed, "finished": whole}
    found = []
    for number, fault in enumerate(faults(whole)):
        runs = folder / f"fault-{number}"
        run = runs / command.name / "run"
        if (base := bases[fault.run]) is None:
            run.mkdir(parents=True)
        else:
            shutil.copytree(base, run)
        found.append(one(command, fault, runs, run, whole))
        print(*found[-1], sep=" | ", file=sys.stderr, flush=True)
    return found


def one(command: Any, fault: Fault, runs: Path, run: Path, whole: Path) -> Tried:
    """The command with a fault, and then once more without it."""
    answer = partial(Tried, fault.name, fault.run)
    try:
        with fault.at(run) as before:
            code, said, printed = result_of(command, runs, before)
    except NotPermitted as error:
        return answer(f"skipped: {error}")
    if "Traceback" in printed or code not in fault.codes:
        return answer(said, f"exit code {code}:\n{printed[-2000:]}")
    if code and not is_a_sentence(said):
        return answer(said, f"no sentence: {said}")
    if code:
        fault.mend(run)
        again, _, printed = result_of(command, runs)
        if again:
            return answer(said, f"once mended, exit code {again}:\n{printed[-2000:]}")
    differing = _stored.differences(whole, run)
    return answer(said if code else "goes on", f"{', '.join(differing)} differ" * bool(differing))


def result_of(command: Any, runs: Path, before: Sequence[str] = ()) -> tuple[int, str, str]:
    """Exit code, last line on standard error, and all that was printed."""
    done = subprocess.run(
        [*before, *command.words(runs)],
        stdin=subprocess.DEVNULL,
        capture_output=True,  # no file, because a limit on files must not hide what is said
        text=True,
        env={**os.environ, **command.environment()},
    )
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return done.returncode, "".join(last), done.stdout + done.stderr


def is_a_sentence(said: str) -> bool:
    """Whether it says what is wrong, and what to do."""
    return (
        said.startswith("error: ") and 30 < len(said) < 1000 and said.isprintable() and ". " in said
    )


def kill_after_two_checkpoints(command: Any, runs: Path, log: Path) -> None:
    """A run that was killed after two checkpoints, and before its end."""
    process = command.start(runs, log)
    folder = runs / command.name / "run"
    while process.is_alive() and len(checkpoints_of(folder)) < 2:
        time.sleep(0.01)
    process.kill()
    process.join()


def checkpoints_of(run: Path) -> list[Path]:
    """The folders of the newest training's checkpoints that are complete, by step."""
    folders = [path for path in run.rglob("checkpoints") if any(path.iterdir())]
    newest = max(folders, key=lambda path: path.stat().st_mtime, default=run)
    return sorted((p for p in newest.glob("*") if p.name.isdecimal()), key=lambda p: int(p.name))


# ---- the faults


def faults(whole: Path) -> Iterator[Fault]:
    """All of them. `whole` is a finished run, whose size tells when a disk is full."""
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for share in (0.05, 0.4):
        at = partial(small_disk, size=max(16_384, int(share * size)))
        yield Fault(f"a disk of {share:.0%} of the run", "new", (1,), at)
    for limit in (0, 1000):
        yield Fault(
            f"files of {limit:,} bytes at most", "new", (1,), partial(small_files, limit=limit)
        )
    yield Fault("files of 200 bytes at most", "killed", (1,), partial(small_files, limit=200))
    for run, codes in (("new", (1, 2)), ("killed", (1, 2)), ("finished", (0,))):
        yield Fault("a read-only folder", run, codes, read_only)
    damages: dict[str, Damage] = {
        "is cut in half": lambda content: content[: len(content) // 2],
        "is empty": lambda content: b"",
        "has a flipped bit": lambda content: flipped(content, len(content) // 2),
        "begins with a flipped bit": lambda content: flipped(content, 0),
    }
    parts = {
        "the record of the newest checkpoint": lambda run: (
            checkpoints_of(run)[-1] / "record/metadata"
        ),
        "the largest array file of the newest checkpoint": largest,
    }
    for part, path in parts.items():
        for what in ("is cut in half", "has a flipped bit"):
            at = partial(damaged, path=path, damage=damages[what])
            yield Fault(f"{part} {what}", "killed", (0, 1), at, without_newest)
    for name, run in (
        ("result.json", "finished"),
        ("metrics.jsonl", "killed"),
        ("config.yaml", "killed"),
    ):
        # A flipped bit in the middle may give another number, which nobody can tell.
        whats = ["is cut in half", "is empty", "begins with a flipped bit"]
        for what in whats[name == "config.yaml" :]:
            at = partial(damaged, path=partial(first, name), damage=damages[what])
            # Lines after the checkpoint may be gone, because the run makes them again.
            codes = (0, 1, 2) if what == "is cut in half" and run == "killed" else (1, 2)
            yield Fault(f"{name} {what}", run, codes, at)


@contextlib.contextmanager
def small_disk(run: Path, *, size: int) -> Iterator[Sequence[str]]:
    """The run's directory is a disk of `size` bytes; then what it holds moves to a larger one."""
    mount("-t", "tmpfs", "-o", f"size={size}", "none", str(run))
    try:
        yield ()
        copy = run.with_name("copy")
        shutil.copytree(run, copy)
    finally:
        subprocess.run(["umount", str(run)], check=True)
    run.rmdir()
    copy.rename(run)


@contextlib.contextmanager
def small_files(run: Path, *, limit: int) -> Iterator[Sequence[str]]:
    """The process may write files of `limit` bytes at most, as after `ulimit -f`."""
    code = "import os, resource, sys; "
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    yield [sys.executable, "-c", code]


@contextlib.contextmanager
def read_only(run: Path) -> Iterator[Sequence[str]]:
    """Nobody can write below the run's directory, not even root."""
    if os.geteuid():
        folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        try:
            yield ()
        finally:
            for path in folders:
                path.chmod(0o755)
        return
    mount("--bind", str(run), str(run))
    try:
        mount("-o", "remount,bind,ro", str(run))
        yield ()
    finally:
        subprocess.run(["umount", str(run)], check=True)


@contextlib.contextmanager
def damaged(run: Path, *, path: Callable[[Path], Path], damage: Damage) -> Iterator[Sequence[str]]:
    """A file is damaged; then it is as before, if the run left it alone."""
    file = path(run)
    content = file.read_bytes()
    broken = damage(content)
    file.write_bytes(broken)
    yield ()
    # A run that goes on removes its older checkpoints, and writes its log anew.
    if file.exists() and file.read_bytes() == broken:
        file.write_bytes(content)


def mount(*words: str) -> None:
    """Mounts, where this is permitted."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        raise NotPermitted(f"mount is not permitted ({done.stderr.strip()[:60]})")


def flipped(content: bytes, at: int) -> bytes:
    """One bit of a byte is another."""
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def first(name: str, run: Path) -> Path:
    """The file of this name in the run's directory, or else in its first part."""
    return min(run.rglob(name), key=lambda path: (len(path.parts), str(path)))


def largest(run: Path) -> Path:
    """The largest file of the newest checkpoint's arrays."""
    files = (path for path in checkpoints_of(run)[-1].joinpath("tree").rglob("*") if path.is_file())
    return max(files, key=lambda path: (path.stat().st_size, str(path)))


def without_newest(run: Path) -> None:
    """What the sentence on a damaged checkpoint says: move it away."""
    shutil.rmtree(checkpoints_of(run)[-1])


def table(experiment: str, found: Sequence[Tried]) -> str:
    """A row per fault."""
    rows = [
        [each.fault, each.run, "FAILS: " + each.failure if each.failure else short(each.said)]
        for each in found
    ]
    return tables.markdown([f"fault, on {experiment}", "run", "ends in"], rows)


def short(said: str) -> str:
    """The sentence without its folder, and without its middle."""
    text = " ".join(word.rsplit("/", 1)[-1] for word in said.split())
    return text if len(text) < 100 else f"{text[:60]} ... {text[-35:]}"
