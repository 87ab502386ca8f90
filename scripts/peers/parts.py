"""Where the time of jaxdl's step goes: the step whole, and with one part of it left out.

    PYTHONPATH=. PYTHON scripts/peers/parts.py WORK [--rounds 5] [--seconds 1]

The forms take turns in one process. A time is the median of the rounds, and beside it is its share
of the whole step. What is left out saves its own arithmetic and the passes over memory that it
needs, so the shares of parts that the compiler fuses overlap. The convolutions are what remains.
All forms have a small inner rate, so that a net without its norm does not diverge.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import jaxdl_maml
import optax
from flax import linen as nn
from works import WORKS, Maml

from jaxdl.meta.estimators import first_order
from jaxdl.meta.memory import auto
from jaxdl.models import conv4, resnet12

INNER_LR = 1e-4
WARM = 4
"""Chunks before the first round: one compiles, and the others find their length."""


class Plain(nn.Module):
    """In place of a norm: the pool alone, where there is one."""

    mode: Any = "batch"
    use_scale: bool = True
    pool: Callable[[Any], Any] | None = None

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.pool(x) if self.pool else x


def same(x: Any, **options: Any) -> Any:
    """In place of an activation."""
    return x


def corner(x: Any) -> Any:
    """In place of a pool: one pixel of four."""
    return x[..., ::2, ::2, :]


def without(part: str) -> contextlib.ExitStack:
    """The parts of the nets, with this one left out."""
    stack, patch = contextlib.ExitStack(), mock.patch.object
    if part == "norm":
        stack.enter_context(patch(conv4, "BatchNorm", Plain))
        stack.enter_context(patch(resnet12, "BatchNorm", Plain))
    if part == "relu":
        stack.enter_context(patch(nn, "relu", same))
        stack.enter_context(patch(resnet12, "_leaky_relu", same))
    if part == "pool":
        stack.enter_context(patch(conv4, "max_pool", corner))
        stack.enter_context(patch(resnet12, "max_pool", corner))
    return stack


PARTS = ("nothing", "norm", "relu", "pool", "second order", "inner steps", "gradient")
"""What is left out. "gradient" leaves sampling, the optimiser and the loop."""


def form(work: Maml, part: str) -> Iterator[Any]:
    """The training of a form, which compiles when its first chunk is taken."""
    steps = 0 if part == "inner steps" else work.inner_steps
    estimator = first_order if part == "second order" else auto
    grad = nothing if part == "gradient" else None
    with without(part):
        inner = optax.sgd(INNER_LR)
        forever = jaxdl_maml.training_of(work, inner, steps, estimator=estimator, grad=grad)
        first = next(forever)
    yield first
    yield from forever


def nothing(key: Any, step: Any, params: Any, episode: Any) -> Any:
    """A gradient of zeros that waits for the whole episode."""
    drawn = sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(episode))
    return jax.tree.map(lambda leaf: 0 * drawn * leaf, params), {"loss": drawn}


def seconds_per_step(forever: Iterator[Any], done: int, seconds: float) -> tuple[float, int]:
    """Time per step for about so many seconds."""
    first, began = done, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done, *_ = next(forever)
    return (time.perf_counter() - began) / (done - first), done


def main() -> None:
    """Prints the table of a work."""
    parser = argparse.ArgumentParser(description=__doc__)
    works = [name for name, work in WORKS.items() if isinstance(work, Maml)]
    parser.add_argument("work", choices=works)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    work = WORKS[asked.work]
    assert isinstance(work, Maml)
    jaxdl_maml.share_cores(work)
    pooled = work.net in ("conv4-pooled", "resnet12")
    lacking = set() if pooled else {"pool"}
    lacking |= set() if work.images else {"norm", "relu"}
    parts = [part for part in PARTS if part not in lacking]
    forms = {part: form(work, part) for part in parts}
    done = {part: [next(each)[0] for _ in range(WARM)][-1] for part, each in forms.items()}
    times: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(asked.rounds):
        for part, each in forms.items():
            found, done[part] = seconds_per_step(each, done[part], asked.seconds)
            times[part].append(1e3 * found)
    whole = statistics.median(times["nothing"])
    print(f"| left out of `{asked.work}` | ms per step | share |")
    print("| :-- | --: | --: |")
    for part, each in times.items():
        middle = statistics.median(each)
        print(f"| {part} | {middle:.3g} | {middle / whole:.2f} |")


if __name__ == "__main__":
    main()
