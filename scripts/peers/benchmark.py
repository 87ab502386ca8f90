"""Training by jaxdl and by PyTorch: the same work, side by side.

Second-order MAML beside the libraries that people use for it; supervised learning of images beside
the script of the tutorials (a Dataset, transforms, DataLoader), a loop over one tensor that holds
all images, and that loop under torch.compile.

Every peer is a process of its own (serve.py) and stays alive. In each round all of them take a turn
of some seconds, one at a time, so that whatever slows the machine slows all of them; the order
rotates. A figure is the median of its rounds, a ratio the median of the rounds' ratios. PyTorch
runs with one thread and with all: after a first round the slower setting leaves. Compiled forms
of MAML take the thread count that was faster for the same form without the compiler. jaxdl runs as
its experiments do: conv nets with the cores as devices that share the tasks, sine waves on one
thread.

Drawing the batch is part of a step on both sides, and the optimiser too.

On two quiet cores MAML takes about 12 minutes and supervised learning as many; the first time
torch.compile adds some ten minutes, which build/torch-compile saves from then on. torch with two
threads is very slow on cores that others use: run it on a quiet machine.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from works import WORKS, Maml, Supervised, Tables, Work, step_flops

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS_ENVIRONMENT = Path(f"{os.environ.get('JAXDL_VENV') or ROOT / '.venv'}-peers")
COMPILED = ROOT / "build" / "torch-compile"
"""What torch.compile keeps between runs; without this folder it compiles everything anew."""


class Peer(NamedTuple):
    """A script of this folder, its variants, and whose faster thread count it takes (or none's)."""

    script: str
    forms: tuple[str, ...] = ("",)
    threads_of: str = ""


MAML_PEERS = {
    "jaxdl": Peer("jaxdl_maml.py"),
    "learn2learn": Peer("learn2learn_maml.py"),
    "higher": Peer("higher_maml.py"),
    "torchopt": Peer("torchopt_maml.py"),
    "torch.autograd": Peer("torch_autograd_maml.py"),
    "torch.func": Peer("torch_func_maml.py", ("loop", "vmap")),
    "torch.compile": Peer("torch_compile_maml.py", ("loop", "vmap"), "torch.func"),
}
SUPERVISED_PEERS = {
    "jaxdl": Peer("jaxdl_supervised.py"),
    "torch.DataLoader": Peer("torch_dataloader.py", ("0 workers", "2 workers")),
    "torch.indexed": Peer("torch_indexed.py"),
    "torch.compile": Peer("torch_compile.py"),
}
TABLE_PEERS = {
    "jaxdl": Peer("jaxdl_tables.py"),
    "torch.tables": Peer("torch_tables.py", ("as nanoTabPFN", "fused attention")),
}
PEERS = tuple(MAML_PEERS | SUPERVISED_PEERS | TABLE_PEERS)
LAYOUTS = ("NCHW", "channels-last")
ON_GPU = ("jaxdl", "torch.func", "torch.indexed", "torch.compile", "torch.tables")
"""The eager libraries of MAML launch a thousand kernels a step: no match, and not asked there."""


def peers_of(work: Work) -> dict[str, Peer]:
    """Who takes part in a work."""
    if isinstance(work, Maml):
        return MAML_PEERS
    if isinstance(work, Tables):
        return TABLE_PEERS
    taking = {name: SUPERVISED_PEERS[name] for name in ("jaxdl", *work.marks)}
    if work.convolves:
        for name in taking.keys() & {"torch.indexed", "torch.compile"}:
            taking[name] = taking[name]._replace(forms=LAYOUTS)
    return taking


@dataclass
class Entrant:
    """A running peer and what it answered."""

    peer: str
    form: str
    threads: int
    process: subprocess.Popen[str]
    log: Path
    about: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join((self.peer, self.form)).strip()

    def ask(self, request: str = "") -> dict[str, Any]:
        """Sends a line, waits for the answer. Raises RuntimeError with the peer's last words."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if request:
                print(request, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            words = [text for text in self.log.read_text().splitlines() if text.strip()]
            raise RuntimeError(words[-1] if words else "it died without a word")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def turn(self, steps: int) -> float:
        """Seconds per step of one turn."""
        self.answer = self.ask(f"run {steps}")
        taken: list[float] = self.answer["seconds_per_step"]
        return sum(taken) / len(taken)

    def stop(self) -> None:
        """Ends the process; one that is busy or broken is killed."""
        self.process.kill()
        self.process.wait()


def start(peer: str, form: str, threads: int, work: str, device: str, logs: Path) -> Entrant:
    script = peers_of(WORKS[work])[peer].script
    python = Path(sys.executable) if peer == "jaxdl" else PEERS_ENVIRONMENT / "bin" / "python"
    log = logs / f"{peer}-{form}-{threads}-{work}.log"
    command = [python, HERE / script, "--work", work, "--threads", threads, "--device", device]
    environ = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(COMPILED),
        # On a GPU, several processes share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PLATFORMS": "cuda" if device == "gpu" else "cpu",
    }
    with open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [str(part) for part in (*command, "--form", form)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environ,
        )
    return Entrant(peer, form, threads, process, log)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Race:
    """All entrants of one work: started, warmed up, thinned out, timed."""

    def __init__(self, work: str, device: str, turn: float, logs: Path) -> None:
        self.work, self.device, self.turn, self.logs = work, device, turn, logs
        self.entrants: list[Entrant] = []
        self.failed: dict[str, str] = {}
        self.matmul: dict[str, list[float]] = {"jaxdl": [], "torch": []}

    def enter(self, wanted: Sequence[tuple[str, str, int]], *, together: bool) -> None:
        """Starts and warms up entrants; `together` warms them side by side, for compilers."""
        new = [start(*one, self.work, self.device, self.logs) for one in wanted]
        self.entrants += new

        def warm(entrant: Entrant) -> None:
            try:
                entrant.about = entrant.ask()
                entrant.about = entrant.ask("warm")
            except RuntimeError as error:
                self.drop(entrant, str(error))

        workers = min(len(new), os.cpu_count() or 1) if together else 1
        with ThreadPoolExecutor(workers or 1) as pool:
            list(pool.map(warm, new))
        for entrant in [one for one in new if one in self.entrants]:
            self.estimate(entrant)

    def estimate(self, entrant: Entrant) -> None:
        """The first turns, which do not count: how many steps fill a turn."""
        try:
            # The first step after a compiler is not typical yet.
            entrant.turn(1)
            entrant.about["estimate"] = entrant.turn(1)
        except RuntimeError as error:
            self.drop(entrant, str(error))
            return
        say(
            f"  {entrant.name}, threads {entrant.threads or 'all'}: first step"
            f" {entrant.about['compile_s']} s, then {1e3 * entrant.about['estimate']:.3g} ms"
        )

    def drop(self, entrant: Entrant, reason: str) -> None:
        say(f"  {entrant.name}, threads {entrant.threads} fails: {reason}")
        self.failed[entrant.name] = reason
        self.entrants.remove(entrant)
        entrant.stop()

    def faster_threads(self, peer: str, form: str) -> int | None:
        """The thread count with the smaller first estimate, None if the peer does not run."""
        times = {
            one.threads: one.about["estimate"]
            for one in self.entrants
            if (one.peer, one.form) == (peer, form)
        }
        return min(times, key=times.__getitem__) if times else None

    def thin(self) -> None:
        """Of each peer and form, the thread count that was clearly slower leaves."""
        for entrant in list(self.entrants):
            rivals = [one for one in self.entrants if one.name == entrant.name]
            best = min(one.about["estimate"] for one in rivals)
            if entrant.about["estimate"] > 1.1 * best:
                self.entrants.remove(entrant)
                entrant.stop()

    def round(self, number: int) -> None:
        """A turn for everyone, beginning with another one each time."""
        shift = number % max(1, len(self.entrants))
        for entrant in self.entrants[shift:] + self.entrants[:shift]:
            steps = max(1, round(self.turn / entrant.about["estimate"]))
            try:
                entrant.seconds.append(entrant.turn(steps))
            except RuntimeError as error:
                self.drop(entrant, str(error))
                continue
            entrant.about["estimate"] = min(entrant.about["estimate"], entrant.seconds[-1])
        for side in self.matmul:
            for entrant in self.entrants:
                most = all(one.threads <= entrant.threads for one in self.entrants)
                if (entrant.peer == "jaxdl") == (side == "jaxdl") and (side == "jaxdl" or most):
                    self.matmul[side].append(entrant.ask("matmul")["gflops"])
                    break

    def rows(self) -> list[dict[str, Any]]:
        """One row for each peer and form, at its faster thread count; the fastest first."""
        best: dict[str, Entrant] = {}
        for entrant in self.entrants:
            rival = best.get(entrant.name)
            if rival is None or median(entrant.seconds) < median(rival.seconds):
                best[entrant.name] = entrant
        own = best.get("jaxdl")
        return [
            {
                "peer": one.peer,
                "form": one.form,
                "threads": one.about["threads"],
                "version": one.about["version"],
                "seconds_per_step": one.seconds,
                "median_s": median(one.seconds),
                "over_jaxdl": over(one.seconds, own.seconds) if own else None,
                "peak_rss_mb": one.answer["peak_rss_mb"],
                "base_mb": one.about["base_mb"],
                "device_mb": one.answer["device_mb"],
                "first_step_s": one.about["compile_s"],
                "loss": one.answer["loss"],
            }
            for one in sorted(best.values(), key=lambda one: median(one.seconds))
        ]


def over(seconds: Sequence[float], own: Sequence[float]) -> float:
    """Median over the rounds of the ratio in that round, counted from the last one."""
    rounds = min(len(seconds), len(own))
    return median(a / b for a, b in zip(seconds[-rounds:], own[-rounds:], strict=True))


@contextlib.contextmanager
def racing(race: Race) -> Iterator[Race]:
    """No process outlives the race."""
    try:
        yield race
    finally:
        for entrant in race.entrants:
            entrant.stop()


def run_work(name: str, options: argparse.Namespace, logs: Path) -> dict[str, Any]:
    """The result of one work, ready for JSON."""
    work = WORKS[name]
    say(f"{name}: {work.title}")
    counts = (0,) if options.device == "gpu" else tuple(sorted({1, os.cpu_count() or 1}))
    taking = {peer: how for peer, how in peers_of(work).items() if peer in options.peers}

    def entries(peer: str) -> list[tuple[str, str, int]]:
        """The peer's forms, each with the thread counts to try."""
        entered = []
        for form in taking[peer].forms:
            threads: Sequence[int | None] = (0,) if peer == "jaxdl" else counts
            if model := taking[peer].threads_of:
                threads = (race.faster_threads(model, form),)
            entered += [(peer, form, counts[-1] if n is None else n) for n in threads]
        return entered

    with racing(Race(name, options.device, options.turn, logs)) as race:
        eager = [entry for peer in taking if peer != "torch.compile" for entry in entries(peer)]
        race.enter(eager, together=False)
        if "torch.compile" in taking:
            race.enter(entries("torch.compile"), together=True)
        for number in range(options.rounds):
            began = time.perf_counter()
            race.round(number)
            if number == 0:
                race.thin()
            say(f"  round {number + 1} of {options.rounds}: {time.perf_counter() - began:.0f} s")
        rows = race.rows()
    rate = max((median(rates) for rates in race.matmul.values() if rates), default=None)
    for row in rows:
        row["gflops"] = step_flops(work) / row["median_s"] / 1e9
        row["share_of_matmul"] = row["gflops"] / rate if rate else None
    return {
        "work": name,
        **work._asdict(),
        "step_gflop": step_flops(work) / 1e9,
        "matmul_gflops": race.matmul,
        "matmul_best_gflops": rate,
        "rows": rows,
        "failed": race.failed,
    }


def heading(work: Work) -> tuple[str, str, int]:
    """The title of a work's table; of what a step takes how many."""
    if isinstance(work, Supervised):
        return f"{work.title}, batch {work.batch}", "images", work.batch
    if isinstance(work, Tables):
        return f"{work.title}, batch {work.batch}", "tables", work.batch
    steps = f"{work.inner_steps} inner step{'s' if work.inner_steps > 1 else ''}"
    return f"{work.title}, {work.tasks} tasks, {steps}, second order", "tasks", work.tasks


def markdown(result: dict[str, Any]) -> str:
    """The table of one work, and what stands beneath it."""
    work = WORKS[result["work"]]
    title, items, count = heading(work)
    # The small net of sine waves is bound by its many small kernels, not by products.
    products = result["matmul_best_gflops"] and not (isinstance(work, Maml) and not work.images)
    lines = [
        f"### {title}",
        "",
        f"| | threads | ms a step (least to most) | time over jaxdl's | {items}/s | GFLOP/s"
        " | peak memory, MB | first step, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        milliseconds = [1e3 * seconds for seconds in row["seconds_per_step"]]
        ratio = "" if row["over_jaxdl"] is None else f"{row['over_jaxdl']:.2f}"
        share = row["share_of_matmul"]
        rate = f"{row['gflops']:.3g}" + (f" ({share:.0%})" if share and products else "")
        memory = row["device_mb"] or row["peak_rss_mb"]
        threads = row["threads"] or "all"
        lines.append(
            f"| {row['peer']} {row['form']} | {threads} | {median(milliseconds):.4g}"
            f" ({min(milliseconds):.4g} to {max(milliseconds):.4g}) | {ratio}"
            f" | {count / row['median_s']:.4g} | {rate} | {memory:.0f}"
            f" | {row['first_step_s']:.3g} |"
        )
    for name, reason in result["failed"].items():
        lines.append(f"| {name} | | fails: {reason[:80]} | | | | | |")
    notes = []
    if not isinstance(work, Maml):
        notes += judged(work, result["rows"])
    if products:
        rates = ", ".join(
            f"{side} {median(rates):.0f}"
            for side, rates in result["matmul_gflops"].items()
            if rates
        )
        notes += [
            f"A step needs {result['step_gflop']:.4g} GFLOP of matrix products. A product of two"
            f" 2048x2048 float32 matrices, in the same rounds: {rates} GFLOP/s; shares are of the"
            " larger.",
        ]
    return "\n".join([*lines, *(line for note in notes for line in ("", note)), ""])


def judged(work: Supervised | Tables, rows: Sequence[dict[str, Any]]) -> list[str]:
    """How long an epoch of images takes, and which marks were reached."""
    fastest: dict[str, dict[str, Any]] = {}
    for row in rows:  # the fastest comes first
        fastest.setdefault(row["peer"], row)
    marks = [
        f"{peer} at least {mark:g} times jaxdl's, found {ratio:.2f}"
        f" ({'reached' if ratio >= mark else 'missed'})"
        for peer, mark in work.marks.items()
        if (ratio := fastest.get(peer, {}).get("over_jaxdl")) is not None
    ]
    notes = []
    if isinstance(work, Supervised):
        steps = work.images.count / work.batch
        times = [f"{peer} {steps * row['median_s']:.3g} s" for peer, row in fastest.items()]
        notes.append(
            f"An epoch of {work.images.count} images ({steps:g} steps): {', '.join(times)}."
        )
    return notes + ([f"Marks for the fastest form's time: {'; '.join(marks)}."] if marks else [])


def facts(device: str, warm: bool) -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    cpu = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    gpu = None
    if device == "gpu":
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "torch_compile_cache": "warm" if warm else "cold",
    }


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=1.5, help="seconds of a peer's turn")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--json", type=Path, help="write all figures of all rounds to this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two rounds of half a second without torch.compile: does it run at all?",
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.turn <= 0:
        parser.error("--rounds must be at least 1 and --turn above 0")
    if options.device == "gpu" and shutil.which("nvidia-smi") is None:
        parser.error("--device gpu: there is no nvidia-smi here, so no NVIDIA GPU")
    known = ON_GPU if options.device == "gpu" else tuple(PEERS)
    options.peers = options.peers or list(known)
    strangers = sorted(set(options.peers) - set(known))
    if strangers:
        parser.error(f"on a GPU choose from {', '.join(ON_GPU)}, not {', '.join(strangers)}")
    for work in options.works:
        if not set(options.peers) & set(peers_of(WORKS[work])):
            parser.error(
                f"of these peers none knows {work}, which {', '.join(peers_of(WORKS[work]))} do"
            )
    if options.quick:
        options.rounds, options.turn = 2, 0.5
        options.peers = [peer for peer in options.peers if peer != "torch.compile"]
    return options


def main() -> None:
    options = options_of(sys.argv[1:])
    about = facts(options.device, COMPILED.is_dir())
    if about["load_before"] > 0.5:
        say(f"The machine is busy (load {about['load_before']:.1f}): do not trust the figures.")
    began = time.perf_counter()
    results = []
    with tempfile.TemporaryDirectory() as logs:
        for work in options.works:
            results.append(run_work(work, options, Path(logs)))
    versions = {
        "torch" if row["peer"] != "jaxdl" else "jax": row["version"]
        for result in results
        for row in result["rows"]
    }
    about |= {"versions": versions, "load_after": os.getloadavg()[0]}
    about |= {"rounds": options.rounds, "wall_s": round(time.perf_counter() - began)}
    print(
        f"{about['gpu'] or about['cpu']}, {about['cores']} cores; Python {about['python']},"
        f" {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))};"
        f" medians of {options.rounds} rounds in turn; load {about['load_before']:.1f} before,"
        f" {about['load_after']:.1f} after; {about['wall_s']} s in all;"
        f" torch.compile's cache was {about['torch_compile_cache']}.\n"
    )
    print("\n".join(markdown(result) for result in results))
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    if not all(result["rows"] for result in results):
        sys.exit("scripts/benchmark: nothing ran; the reasons are in the table")


if __name__ == "__main__":
    main()
