"""Memory and time of a meta-gradient through 1 to 1,000 inner steps, beside PyTorch's.

    PYTHONPATH=. PYTHON scripts/peers/memory.py [--rounds 5] [--steps 1 10 100] [--works maml]
    PYTHONPATH=. PYTHON scripts/peers/memory.py --rounds 0     memory of jaxdl alone, nothing is run

PYTHON has PyTorch and this project's JAX (`scripts/test peers` makes such an environment). It
prints the tables of docs/memory.md. Both sides take the gradient, by the first parameters, of the
loss of a query set after the inner steps, for one task:

- maml: 20-way 1-shot on conv-4 with strides and 64 filters, one query per class, SGD inside.
- transformer: two layers of width 64 with four heads, 8 sequences of 32 tokens, Adam inside.

The memory of jaxdl is what the compiler reserves for intermediate values (`memory_analysis`). That
of PyTorch is the growth of the process. Times are medians of rounds in which all take turns, after
a first one that does not count; above 200 steps there is one round. Each side has one thread. A
form that needs more than 6 GiB is not run.
"""

import argparse
import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from serve import forget_peak, resident_mb

from jaxdl import parallel
from jaxdl.losses import cross_entropy
from jaxdl.meta.inner import adam, descend
from jaxdl.meta.memory import ESTIMATORS
from jaxdl.models.conv4 import conv4_omniglot
from jaxdl.types import Batch

WAYS, FILTERS, SIDE = 20, 64, 28
TOKENS, WIDTH, HEADS, LAYERS, LENGTH, SEQUENCES = 64, 64, 4, 2, 32, 8
LR, EPS = 0.01, 1e-8
FORMS = ("exact", "rematerialised", "mixed-mode", "segments", "mixed-segments", "auto")
MOST_MIB = 6 * 1024
COUNTS = (1, 5, 10, 50, 100, 1000)


class Entrant(NamedTuple):
    """A meta-gradient that can be taken, and the MiB that it needs."""

    run: Callable[[], Any]
    mib: float


# ---- the nets, once in each library


def transformer(params: dict[str, Any], tokens: Any, np_: Any, softmax: Any, relu: Any) -> Any:
    """Logits of the next token, with the functions of either library."""
    x = params["embed"][tokens] + params["position"]

    def normal(x: Any) -> Any:
        centred = x - x.mean(-1)[..., None]
        return centred / np_.sqrt((centred * centred).mean(-1)[..., None] + 1e-5)

    for layer in range(LAYERS):
        q, k, v = (
            np_.einsum("btw,whd->bhtd", normal(x), params[f"{name}{layer}"]) for name in "qkv"
        )
        scores = np_.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(WIDTH // HEADS)
        mixed = np_.einsum("bhts,bhsd->bhtd", softmax(scores + params["mask"]), v)
        x = x + np_.einsum("bhtd,hdw->btw", mixed, params[f"out{layer}"])
        x = x + relu(normal(x) @ params[f"up{layer}"]) @ params[f"down{layer}"]
    return normal(x) @ params["embed"].T


def transformer_params() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"embed": (TOKENS, WIDTH), "position": (LENGTH, WIDTH)}
    for layer in range(LAYERS):
        heads = (WIDTH, HEADS, WIDTH // HEADS)
        shapes |= {f"{name}{layer}": heads for name in "qkv"}
        shapes |= {f"out{layer}": (*heads[1:], WIDTH)}
        shapes |= {f"up{layer}": (WIDTH, 4 * WIDTH), f"down{layer}": (4 * WIDTH, WIDTH)}
    return {name: (rng.normal(size=s) / 8).astype(np.float32) for name, s in shapes.items()}


MASK = np.where(np.tri(LENGTH), 0, -1e9).astype(np.float32)


def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Tokens to adapt on, and others to be judged on, with one token more than is read."""
    rng = np.random.default_rng(1)
    return tuple(rng.integers(0, TOKENS, (2, SEQUENCES, LENGTH + 1)))  # type: ignore[return-value]


# ---- jaxdl


def of_jaxdl(work: str, steps: int, form: str) -> Entrant:
    if work == "maml":
        net, tx = conv4_omniglot(WAYS, FILTERS), optax.sgd(LR)
        images = jax.random.uniform(jax.random.key(0), (2, WAYS, SIDE, SIDE, 1))
        support, query = (Batch(x, jnp.arange(WAYS)) for x in images)
        params = net.init(jax.random.key(0), support.x)
        apply = net.apply
    else:
        params, tx = jax.tree.map(jnp.asarray, transformer_params()), adam(LR)
        support, query = (Batch(t[:, :-1], t[:, 1:]) for t in map(jnp.asarray, sequences()))

        def apply(params: Any, tokens: Any) -> Any:
            logits = transformer(params | {"mask": MASK}, tokens, jnp, jax.nn.softmax, jax.nn.relu)
            return logits.reshape(-1, TOKENS)

    def loss(params: Any, key: Any, batch: Batch) -> Any:
        del key
        return cross_entropy(apply(params, batch.x), batch.y.reshape(-1))

    def outer(params: Any, support: Batch, query: Batch) -> Any:
        options: dict[str, Any] = {"steps": steps, "estimator": ESTIMATORS[form]}  # type: ignore[index]
        return loss(descend(loss, params, tx, support, **options)[0], None, query)[0]

    compiled = jax.jit(jax.grad(outer)).lower(params, support, query).compile()
    need = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return Entrant(lambda: jax.block_until_ready(compiled(params, support, query)), need)


# ---- PyTorch


def of_torch(work: str, steps: int, guess: float) -> Entrant:
    """The loop that people write: `torch.autograd.grad(create_graph=True)`.

    Args:
        guess: MiB that it will need.
    """
    if work == "maml":
        from torch_side import conv4, init_params
        from works import WORKS

        start = init_params(WORKS["omniglot-20way"])
        images = torch.rand(2, WAYS, 1, SIDE, SIDE)
        support, query = ((x, torch.arange(WAYS)) for x in images)
        net = conv4
    else:
        start = {name: torch.tensor(value) for name, value in transformer_params().items()}
        support, query = ((t[:, :-1], t[:, 1:].reshape(-1)) for t in map(torch.tensor, sequences()))

        def net(params: Any, tokens: Any) -> Any:
            masked = params | {"mask": torch.tensor(MASK)}
            softmax = partial(torch.softmax, dim=-1)
            return transformer(masked, tokens, torch, softmax, F.relu).reshape(-1, TOKENS)

    params = {name: value.requires_grad_() for name, value in start.items()}

    def run() -> Any:
        at, first = params, {name: torch.zeros_like(value) for name, value in params.items()}
        second = dict(first)
        for step in range(1, steps + 1):
            value = F.cross_entropy(net(at, support[0]), support[1])
            grads = torch.autograd.grad(value, list(at.values()), create_graph=True)
            named = dict(zip(at, grads, strict=True))
            if work == "maml":
                at = {name: p - LR * named[name] for name, p in at.items()}
                continue
            first = {name: 0.9 * first[name] + 0.1 * g for name, g in named.items()}
            second = {name: 0.999 * second[name] + 0.001 * g * g for name, g in named.items()}
            rate = LR / (1 - 0.9**step)
            at = {
                name: p - rate * first[name] / (second[name] / (1 - 0.999**step) + EPS).sqrt()
                for name, p in at.items()
            }
        outer = F.cross_entropy(net(at, query[0]), query[1])
        return torch.autograd.grad(outer, list(params.values()))

    if guess > MOST_MIB:
        return Entrant(run, math.nan)
    run()
    forget_peak()
    before = resident_mb("VmRSS")
    run()
    return Entrant(run, resident_mb() - before)  # in units of 2**20 bytes


# ---- the tables


def measured(work: str, steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """MiB, and milliseconds per inner step, of every form."""
    entrants = {form: of_jaxdl(work, steps, form) for form in FORMS}
    if not rounds:  # memory alone, which nothing else on the machine changes
        return {name: (one.mib, math.nan) for name, one in entrants.items()}
    entrants["torch.autograd"] = of_torch(work, steps, entrants["exact"].mib)
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    for number in range(-1, rounds):
        for name, entrant in entrants.items():
            if not entrant.mib <= MOST_MIB:
                continue
            began = time.perf_counter()
            entrant.run()
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
            ctypes.CDLL(None).malloc_trim(0)
    return {
        name: (one.mib, 1e3 * statistics.median(seconds[name] or [math.nan]) / steps)
        for name, one in entrants.items()
    }


def tables(work: str, counts: list[int], rounds: int) -> Iterator[str]:
    """Markdown: memory, then time."""
    found = {}
    for steps in counts:
        found[steps] = measured(work, steps, rounds if steps <= 200 else min(rounds, 1))
        print(work, steps, found[steps], file=sys.stderr, flush=True)
    names = (*FORMS, *(["torch.autograd"] if rounds else []))
    columns = ((0, "MiB", ",.0f"), (1, "ms per inner step", ".3g"))
    for column, unit, form in columns if rounds else columns[:1]:
        yield f"| {work}, {unit} | {' | '.join(names)} |"
        yield "|" + " --: |" * (len(names) + 1)
        for steps in counts:
            cells = (found[steps][name][column] for name in names)
            shown = ("" if math.isnan(cell) else f"{cell:{form}}" for cell in cells)
            yield f"| {steps:,} | {' | '.join(shown)} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--works", nargs="+", default=["maml", "transformer"])
    options = parser.parse_args()
    torch.manual_seed(0)
    parallel.one_thread()
    torch.set_num_threads(1)
    for work in options.works:
        for line in tables(work, list(options.steps), options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
