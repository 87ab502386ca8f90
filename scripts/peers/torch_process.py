"""The process of a PyTorch peer: threads, the loop of steps, and what it answers."""

from collections.abc import Callable
from typing import Any

import torch
from serve import MATMUL_SIDE, Worker, arguments, serve, timed
from torch import Tensor
from works import WORKS

Step = Callable[[], Tensor]
"""Trains once and returns the loss."""


def main(make: Callable[[Any, str, str], Step]) -> None:
    """Serves the peer whose training step `make(work, form, device)` builds."""
    about = arguments()
    device = "cuda" if about["device"] == "gpu" else "cpu"

    def build() -> Worker:
        torch.manual_seed(0)
        if about["threads"]:
            torch.set_num_threads(about["threads"])
        about["threads"] = torch.get_num_threads()
        about["version"] = torch.__version__
        # JAX multiplies float32 matrices in TF32 on a GPU, so torch may too.
        torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
        torch.backends.cudnn.benchmark = True
        step = make(WORKS[about["work"]], about["form"], device)

        def matmul() -> float:
            a, b = torch.rand(2, MATMUL_SIDE, MATMUL_SIDE, device=device)
            seconds, _ = timed(lambda: (a @ b)[0, 0], 10)
            return 2e-9 * MATMUL_SIDE**3 / min(seconds)

        def device_mb() -> float | None:
            return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None

        return Worker(lambda n: timed(step, n), matmul, device_mb)

    serve(about, build)
