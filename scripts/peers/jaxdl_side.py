"""The process of jaxdl's peer: its compiled loop of training, and what it answers."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
from serve import MATMUL_SIDE, Worker, arguments, serve, timed
from works import WORKS

from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states
from jaxdl.types import Key, StepFn, Stream

Training = Iterator[tuple[int, Any, Any]]
"""What `jaxdl.train.loop.loop` returns."""


def training(
    step: StepFn,
    stream: Stream,
    init: Callable[[Key], Any],
    tx: optax.GradientTransformation,
    *,
    with_stats: bool = False,
    devices: int = 1,
) -> Training:
    """A training of one seed without an end; `init` and `with_stats` as in `init_states`."""
    keys = jax.random.split(jax.random.key(0), 1)
    state = init_states(init, keys, tx, with_stats=with_stats)
    return loop(step, stream, keys, state, steps=10**9, seconds=0.5, devices=devices)


def main(train: Callable[[Any], Training]) -> None:
    """Serves the training that `train(work)` starts."""
    about = arguments()
    about["version"] = jax.__version__

    def build() -> Worker:
        training, done = train(WORKS[about["work"]]), 0
        about["threads"] = int(os.environ.get("NPROC") or 0)  # which it may have set

        def run(n: int) -> tuple[list[float], float]:
            """At least `n` steps: `loop` yields after whole chunks."""
            nonlocal done
            first, value, began = done, float("nan"), time.perf_counter()
            while done < first + n:
                done, _, metrics = next(training)
                value = float(metrics["loss"][0, -1])
            return [(time.perf_counter() - began) / (done - first)], value

        def matmul() -> float:
            a = jax.random.uniform(jax.random.key(0), (MATMUL_SIDE, MATMUL_SIDE))
            product = jax.jit(lambda a: (a @ a)[0, 0])
            product(a).block_until_ready()
            seconds, _ = timed(lambda: product(a), 10)
            return 2e-9 * MATMUL_SIDE**3 / min(seconds)

        def device_mb() -> float | None:
            stats = jax.local_devices()[0].memory_stats()
            return stats["peak_bytes_in_use"] / 2**20 if stats else None

        return Worker(run, matmul, device_mb)

    serve(about, build)
