"""The protocol between `scripts/benchmark` and a peer: a process that works when it is told to.

Peers are alive side by side and take turns, so that a change in the machine's speed hits all of
them. A peer reads lines and answers each with one line of JSON:

    (start)     {"peer", "form", "work", "threads", "version", "base_mb"}
    warm        the same, with "compile_s": the first step, compilation included
    run N       the same, with "seconds_per_step": [at most 10 means], "loss", "peak_rss_mb"
                and on a GPU "device_mb"
    matmul      {"gflops"}: a large float32 matrix product by the peer's own library
"""

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from works import WORKS

MATMUL_SIDE = 2048


def resident_mb(field: str = "VmHWM") -> float:
    """Peak (`VmHWM`) or present (`VmRSS`) resident memory of this process in MB."""
    with open("/proc/self/status", encoding="ascii") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith(field + ":"))
    return round(int(kilobytes) / 1024, 1)


def forget_peak() -> None:
    """Peak memory counts from here: compilers leave free memory behind, which is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")


def timed(step: Callable[[], Any], n: int) -> tuple[list[float], float]:
    """Seconds per step of `n` steps, as means of at most 10 blocks, and the last loss.

    Reading the loss as a number waits for the device.
    """
    blocks = min(n, 10)
    seconds, loss = [], float("nan")
    for block in range(blocks):
        count = n // blocks + (block < n % blocks)
        began = time.perf_counter()
        for _ in range(count):
            value = step()
        loss = float(value)
        seconds.append((time.perf_counter() - began) / count)
    return seconds, loss


class Worker(NamedTuple):
    """`run(n) -> (seconds per step, loss)`; `matmul() -> GFLOP/s`; peak MB on the accelerator."""

    run: Callable[[int], tuple[list[float], float]]
    matmul: Callable[[], float]
    device_mb: Callable[[], float | None] = lambda: None


def serve(about: dict[str, Any], build: Callable[[], Worker]) -> None:
    """Answers until standard input ends.

    Libraries that print find standard output turned into standard error: only answers go out.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(about | fields), file=answers, flush=True)

    about["base_mb"] = resident_mb("VmRSS")
    worker = build()
    answer()
    for line in sys.stdin:
        match line.split():
            case ["warm"]:
                began = time.perf_counter()
                worker.run(1)
                answer(compile_s=round(time.perf_counter() - began, 2))
                forget_peak()
            case ["run", n]:
                seconds, loss = worker.run(int(n))
                memory = {"peak_rss_mb": resident_mb(), "device_mb": worker.device_mb()}
                answer(seconds_per_step=seconds, loss=loss, **memory)
            case ["matmul"]:
                answer(gflops=worker.matmul())
            case _:
                answer(error=f"unknown request {line!r}")


def arguments() -> dict[str, Any]:
    """`--work NAME --threads N --device cpu|gpu`, as a dict with the peer's name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--form", default="", help="the peer's variant, where it has several")
    peer = Path(sys.argv[0]).stem.removesuffix("_maml").replace("_", ".")
    return {"peer": peer, **vars(parser.parse_args())}
