"""What a training step of the learners that adapt in one pass costs: time and temporaries.

    PYTHONPATH=. PYTHON scripts/peers/processes.py [--rounds 5] [--seconds 1] [--json FILE]

The learners take turns in one process with one thread, as `regression_1d` has. A step is that of
the benchmark of TNP (arXiv:2207.04179): 16 tasks drawn from Gaussian processes with RBF kernels,
the gradient, and Adam. For `tabular` it is the step of its experiment. Times are medians of the
rounds. The temporaries are those of the compiled step, by `memory_analysis()`.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from experiments import regression_1d, tabular
from jaxdl import parallel
from jaxdl.data.sets.gp import gp
from jaxdl.grads import over_tasks
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.curves import learner_of_curves
from jaxdl.recipes.learners import PROCESSES
from jaxdl.recipes.tabular import learner_of_tables, optimiser, prior
from jaxdl.runs.config import flat
from jaxdl.train.steps import init_state, make_step
from jaxdl.train.streams import step_keys, task_stream
from jaxdl.types import MetaLearner, Sampler, TrainState

CURVES = ("cnp", "canp", "lnp", "anp", "convcnp", "tnp_d")


class Entrant(NamedTuple):
    """A training that `turn(steps)` goes on with, its parameters and the MiB of its temporaries."""

    turn: Callable[[int], None]
    parameters: int
    mib: float


def entrant(
    learner: MetaLearner,
    sample: Sampler,
    tx: optax.GradientTransformation,
    *,
    tasks: int,
    chunk: int | None,
    x: Any,
) -> Entrant:
    """The compiled training of a learner."""
    key = jax.random.key(0)
    step = make_step(over_tasks(learner.grad, chunk=chunk), tx)
    stream = task_stream(sample, tasks)

    def run(state: TrainState, count: Any) -> TrainState:
        def body(_: Any, state: TrainState) -> TrainState:
            return step(step_keys(key, state.step)[1], state, stream(key, state.step))[0]

        return lax.fori_loop(0, count, body, state)

    params = jax.jit(learner.init)(key, x)
    held = [init_state(params, tx)]
    compiled = jax.jit(run).lower(held[0], jnp.int32(1)).compile()

    def turn(steps: int) -> None:
        held[0] = jax.block_until_ready(compiled(held[0], jnp.int32(steps)))

    mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return Entrant(turn, sum(leaf.size for leaf in jax.tree.leaves(params)), mib)


def of_curves(name: str) -> Entrant:
    """A learner of `regression_1d` with its defaults."""
    config = with_learner(regression_1d.Config(), name, PROCESSES)
    learner = learner_of_curves(flat(config), make=PROCESSES[name])
    options: dict[str, Any] = {"tasks": config.tasks, "chunk": None, "x": jnp.zeros((2, 1))}
    return entrant(learner, gp("rbf"), optax.adam(config.lr), **options)


def of_tables() -> Entrant:
    """The learner of `tabular` with its defaults."""
    config = tabular.Config()
    values = flat(config)
    x = jnp.zeros((2, config.features))
    options: dict[str, Any] = {"tasks": config.tasks, "chunk": 1, "x": x}
    return entrant(learner_of_tables(values), prior(values), optimiser(values), **options)


def seconds_of(turn: Callable[[int], None], steps: int) -> float:
    """Seconds per step."""
    began = time.perf_counter()
    turn(steps)
    return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--json", type=Path, help="where all figures go")
    options = parser.parse_args()
    parallel.one_thread()
    makers = {name: partial(of_curves, name) for name in CURVES} | {"tabular": of_tables}
    entrants = {name: make() for name, make in makers.items()}
    counts, times = {}, {name: list[float]() for name in entrants}
    for name, each in entrants.items():
        each.turn(1)
        counts[name] = max(1, round(options.seconds / seconds_of(each.turn, 2)))
    for _ in range(options.rounds):
        for name, each in entrants.items():
            times[name].append(seconds_of(each.turn, counts[name]))
    print("| learner | parameters | ms per step (least to most) | temporaries, MiB |")
    print("| :--- | ---: | ---: | ---: |")
    for name, each in entrants.items():
        least, middle, most = (1e3 * f(times[name]) for f in (min, statistics.median, max))
        figures = f"{middle:.3g} ({least:.3g} to {most:.3g}) | {each.mib:.3g} |"
        print(f"| {name} | {each.parameters:,} | {figures}")
    about = f"jax {jax.__version__}, {platform.machine()}, one thread; {options.rounds} rounds"
    print(f"\n{about}")
    if options.json:
        mib = {name: each.mib for name, each in entrants.items()}
        found = {"about": about, "seconds_per_step": times, "temporaries_mib": mib}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
