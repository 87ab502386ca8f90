"""The protocol between `scripts/benchmark` and a peer: a process that works when it is told to.

Peers are alive side by side and take turns, so that a change in the machine's speed hits all of
them. A peer reads lines and answers each with one line of JSON:

    (start)     {"peer", "work", "threads", "compile_s", "base_mb"}
    run N       the same, with "seconds_per_step": [at most 10 means], "loss" and "peak_rss_mb"
    matmul      {"gflops"}: a large float32 matrix product by the peer's own library
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MATMUL_SIDE = 2048


def resident_mb(field: str = "VmHWM") -> float:
    """Peak (`VmHWM`) or present (`VmRSS`) resident memory of this process in MB."""
    with open("/proc/self/status", encoding="ascii") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith(field + ":"))
    return round(int(kilobytes) / 1024, 1)


def forget_peak() -> None:
    """Peak memory counts from here: what start-up and compilation took is told apart."""
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


def serve(
    about: dict[str, Any],
    build: Callable[[], tuple[Callable[[int], tuple[list[float], float]], Callable[[], float]]],
) -> None:
    """Answers until standard input ends. `build() -> (run, matmul)`.

    `run(n) -> (seconds per step, loss)`; `matmul() -> GFLOP/s`. Libraries that print find standard
    output turned into standard error: the answers alone go out.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(about | fields), file=answers, flush=True)

    base = resident_mb("VmRSS")
    began = time.perf_counter()
    run, matmul = build()
    run(1)
    about = about | {"compile_s": round(time.perf_counter() - began, 2), "base_mb": base}
    run(1)
    forget_peak()
    answer()
    for line in sys.stdin:
        match line.split():
            case ["run", n]:
                seconds, loss = run(int(n))
                answer(seconds_per_step=seconds, loss=loss, peak_rss_mb=resident_mb())
            case ["matmul"]:
                answer(gflops=matmul())
            case _:
                answer(error=f"unknown request {line!r}")


def arguments() -> dict[str, Any]:
    """`--work NAME --threads N --device cpu|gpu`, as a dict with the peer's name."""
    import argparse
    from pathlib import Path

    from works import WORKS

    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--form", default="", help="the peer's variant, where it has several")
    peer = Path(sys.argv[0]).stem.removesuffix("_maml").replace("_", ".")
    return {"peer": peer, **vars(parser.parse_args())}
