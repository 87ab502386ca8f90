"""Continual learning by jaxdl's compiled stream beside a PyTorch loop, in turn, one process.

    PYTHONPATH=. PYTHON scripts/peers/continual.py [--rounds 5] [--seconds 1] [--json FILE]

PYTHON has PyTorch and this project's JAX (`scripts/test peers` makes such an environment). Both
sides do the same: a net 784-100-100-10, one new example of bytes after another, a reservoir of
5,120 that is full from the start, and ER with 25 old examples in one batch, or MER by
algorithm 6 with 100 old examples one after another. PyTorch is eager, with the memory in two
tensors, rows drawn by index, fused SGD, and with one thread or two. Figures are milliseconds an
example: the median of the rounds, after a first turn that does not count.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from jax import lax
from torch import nn

from experiments.continual import CLASSES, HIDDEN, net
from jaxdl.continual.er import er
from jaxdl.continual.mer import mer_one_batch
from jaxdl.data.sets.rotated_permuted import permutations, task_after_task
from jaxdl.losses import cross_entropy
from jaxdl.replay.uniform import Memory
from jaxdl.types import Batch

PIXELS, CAPACITY = 784, 5120
REPLAYS = {"ER": 25, "MER, algorithm 6": 100}
LR, GAMMA = 0.03, 0.1
Turn = Callable[[int], None]
"""Learns from so many more examples."""


def images() -> tuple[np.ndarray, np.ndarray]:
    """As many bytes as MNIST's training set, a fifth of them ink, and labels."""
    rng = np.random.default_rng(0)
    ink = rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    ink[rng.random(ink.shape) > 0.2] = 0
    return ink, rng.integers(0, CLASSES, len(ink)).astype(np.int32)


def jaxdl_side(method: str, x: np.ndarray, y: np.ndarray) -> Turn:
    """The stream, the memory and the updates in one compiled loop."""
    options: Any = {"capacity": CAPACITY, "replay_batch_size": REPLAYS[method]}
    if method == "ER":
        learner = er(net(), cross_entropy, optax.sgd(LR), **options)
    else:
        learner = mer_one_batch(net(), cross_entropy, lr=LR, gamma=GAMMA, **options)
    stream = task_after_task(x, y, permutations(0, 20, PIXELS), examples=1000)
    key = jax.random.key(0)

    @partial(jax.jit, donate_argnums=1)
    def run(stream: Any, state: Any, count: Any) -> Any:
        def body(i: Any, state: Any) -> Any:
            step_key = jax.random.fold_in(key, state.step)
            return learner.step(step_key, state, stream(key, state.step % 20_000, None))[0]

        return lax.fori_loop(0, count, body, state)

    state = learner.init(key, stream(key, jnp.int32(0), None))
    items = Batch(jnp.asarray(x[:CAPACITY]).reshape(CAPACITY, PIXELS), jnp.asarray(y[:CAPACITY]))
    memory = Memory(items, jnp.int32(CAPACITY), jnp.uint32(CAPACITY))
    held = [state._replace(step=jnp.int32(CAPACITY), memory=memory)]

    def turn(count: int) -> None:
        held[0] = jax.block_until_ready(run(stream, held[0], jnp.int32(count)))

    return turn


class TorchSide:
    """The same algorithms as a loop of eager PyTorch."""

    def __init__(self, method: str, x: np.ndarray, y: np.ndarray) -> None:
        torch.manual_seed(0)
        self.method, self.replays = method, REPLAYS[method]
        self.x, self.y = torch.from_numpy(x).reshape(len(x), PIXELS), torch.from_numpy(y).long()
        self.orders = [torch.randperm(PIXELS) for _ in range(20)]
        sizes = (PIXELS, HIDDEN, HIDDEN, CLASSES)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])
        self.parameters = list(self.net.parameters())
        self.tx = torch.optim.SGD(self.parameters, lr=LR, fused=True)
        self.memory_x, self.memory_y = self.x[:CAPACITY].clone(), self.y[:CAPACITY].clone()
        self.seen = CAPACITY

    def update(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.tx.zero_grad(set_to_none=True)
        F.cross_entropy(self.net(x), y).backward()
        self.tx.step()

    def turn(self, count: int) -> None:
        for _ in range(count):
            row = random.randrange(len(self.x))
            new_x = self.x[row][self.orders[self.seen // 1000 % 20]][None]
            self.observe(new_x, self.y[row][None])

    def observe(self, new_x: torch.Tensor, new_y: torch.Tensor) -> None:
        rows = torch.randint(CAPACITY, (self.replays,))
        x = torch.cat([self.memory_x[rows], new_x]).float().div_(255)
        y = torch.cat([self.memory_y[rows], new_y])
        if self.method == "ER":
            self.update(x, y)
        else:
            before = [leaf.detach().clone() for leaf in self.parameters]
            for one_x, one_y in zip(x.split(1), y.split(1), strict=True):
                self.update(one_x, one_y)
            with torch.no_grad():
                torch._foreach_lerp_(before, self.parameters, GAMMA)
                torch._foreach_copy_(self.parameters, before)
        place = random.randrange(self.seen + 1)
        if place < CAPACITY:
            self.memory_x[place], self.memory_y[place] = new_x[0], new_y[0]
        self.seen += 1


def with_threads(side: TorchSide, threads: int) -> Turn:
    def turn(count: int) -> None:
        torch.set_num_threads(threads)
        side.turn(count)

    return turn


def timed(turn: Turn, count: int) -> float:
    """Milliseconds an example."""
    began = time.perf_counter()
    turn(count)
    return 1000 * (time.perf_counter() - began) / count


def race(method: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds an example of every side in every round."""
    x, y = images()
    sides = {"jaxdl": jaxdl_side(method, x, y)}
    for threads in (1, 2):
        sides[f"PyTorch, {threads} thread{'s' * (threads > 1)}"] = with_threads(
            TorchSide(method, x, y), threads
        )
    counts = {}
    for name, turn in sides.items():
        turn(5)  # compiles
        counts[name] = max(10, int(1000 * seconds / timed(turn, 20)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, turn in sides.items():
            found[name].append(timed(turn, counts[name]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--json", type=Path, help="where all figures go")
    options = parser.parse_args()
    results = {method: race(method, options.rounds, options.seconds) for method in REPLAYS}
    names = list(next(iter(results.values())))
    print("| ms an example | " + " | ".join(names) + " | jaxdl is so many times faster |")
    print("| :--- |" + " ---: |" * (len(names) + 1))
    for method, found in results.items():
        medians = {name: statistics.median(times) for name, times in found.items()}
        best = min(value for name, value in medians.items() if name != "jaxdl")
        cells = [f"{value:.3g}" for value in medians.values()]
        print(f"| {method} | " + " | ".join(cells) + f" | {best / medians['jaxdl']:.1f} |")
    about = f"torch {torch.__version__}, jax {jax.__version__}, {platform.machine()}"
    print(f"\n{about}; median of {options.rounds} rounds in turn; against PyTorch's faster count.")
    if options.json:
        options.json.write_text(json.dumps({"about": about, "ms_per_example": results}, indent=2))


if __name__ == "__main__":
    main()
