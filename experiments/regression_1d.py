"""Neural processes on curves: they predict mean and scale from a few points, beside the exact GP.

A task is a curve, drawn from a Gaussian process of random lengthscale and scale. The learner sees 3
to 46 points of it, the context, and predicts others. The recipe is that of the benchmark of TNP
(arXiv:2207.04179): 100,000 steps of 16 tasks, Adam with 0.0005 along a cosine, 48,000 test tasks.
Its nets are trained on RBF and tested on RBF and Matern. The exact posterior knows the kernel, the
lengthscale and the scale of each task. So it is an upper bound.

Command: scripts/run regression_1d --learner tnp_d
Runtime: 20,000 steps of 3 seeds take 14 minutes (cnp), 63 (canp, tnp_d) on one core of two
Result: log-likelihood per point of targets and of the context: docs/results.md
"""

import dataclasses
from functools import partial
from typing import Any

import jax

from experiments.reports._processes import draw_curve
from experiments.reports.regression_1d import PUBLISHED, draw_bands, report
from jaxdl import parallel
from jaxdl.data.sets.gp import KERNELS
from jaxdl.errors import InputError
from jaxdl.losses import gaussian_nll
from jaxdl.meta.cnp import cnp
from jaxdl.recipes.choice import Choice, find, from_arguments, own_keywords
from jaxdl.recipes.curves import (
    TASKS,
    exact_metrics,
    learner_of_curves,
    measure_of,
    posterior_of,
    summary,
    trained,
)
from jaxdl.recipes.learners import PROCESSES
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    Positive,
    RunFlags,
    Seeds,
    Start,
    each_once,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run, say
from jaxdl.train.loop import per_seed
from jaxdl.types import MetaLearner, Params

TEST_KEY, FIGURE_KEY = 1_000_001, 1_000_003
"""Keys apart from all training seeds, the same for every learner and seed."""


@dataclasses.dataclass(frozen=True)
class Config:
    learner: str = "cnp"
    """Learner: cnp, canp, lnp, anp, tnp_d, convcnp, maml, or path/to/mine.py:my_learner. Each has
    flags of its own."""
    kernel: str = "rbf"
    """Curves to train on: rbf, matern, weakly_periodic, sawtooth, mixture (each of these four as
    often), or sines, the sine waves of MAML with 10 points given."""
    test_kernels: tuple[str, ...] = ("rbf", "matern")
    """Curves to test on."""
    steps: Count = 100_000
    """Training steps."""
    tasks: Count = 16
    """Tasks per step."""
    lr: Positive = 0.0005
    """Learning rate of Adam at the start. It falls to 0 along a cosine."""
    decay_steps: Natural = 0
    """Steps until the learning rate is 0. 0: those of the training."""
    method: Any = dataclasses.field(default_factory=own_keywords(cnp))
    test_tasks: AtLeastTwo = 48_000
    """Tasks of the final evaluation, for each kind of curve."""
    start: Start = Start()
    """Weights to start from."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=500))


complete = partial(from_arguments, learners=PROCESSES)
"""Adds the flags of the learner."""


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    choice = find(config.learner, PROCESSES)
    options: dict[str, Any] = {"check": check, "prepare": parallel.one_thread}
    options |= {"label": f"{choice.name}-{config.kernel}", "contents": choice.contents}
    return run_experiment("regression_1d", config, partial(experiment, choice), report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    each_once("kernel", [config.kernel], TASKS)
    each_once("test_kernels", config.test_kernels, TASKS)
    reach = flat(config).get("reach", 5)
    if "sines" in (config.kernel, *config.test_kernels) and reach < 5:
        raise InputError(f"`reach={reach}`: sine waves go from -5 to 5. Give 5.5, say")
    seeds_below(config.random, TEST_KEY)


def experiment(choice: Choice, config: Config, run: Run) -> dict[str, Any]:
    """Training, evaluation and the pictures."""
    learner = learner_of_curves(flat(config), make=choice.make)
    curves = TASKS[config.kernel]()
    choice.check(learner, curves, gaussian_nll)
    choice.keep(run)
    params = trained(flat(config), run, learner, curves, inputs=1, start=config.start)
    scores = {kernel: evaluated(config, learner, params, kernel) for kernel in config.test_kernels}
    result = {
        "scores": {choice.name: scores, "gp": exact(config)},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(per_seed(params)[0])),
        "published": PUBLISHED.get(choice.name, {}),
        "split": "test tasks drawn anew",
        "batch_norm": "none",
        "config": flat(config),
    }
    draw(run, choice.name, config, learner, params)
    return run.finish(result)


def evaluated(
    config: Config, learner: MetaLearner, params: Params, kernel: str
) -> list[dict[str, Any]]:
    """For each seed: mean and 95 % interval over tasks of each metric."""
    measure = measure_of(learner, TASKS[kernel](), episodes=config.test_tasks)
    say(f"test on {config.test_tasks:,} tasks: {kernel}")
    return [summary(measure(jax.random.key(TEST_KEY), each)) for each in per_seed(params)]


def exact(config: Config) -> dict[str, Any]:
    """The same for the exact posterior, of the kernels that have one."""
    found = {
        kernel: exact_metrics(kernel, jax.random.key(TEST_KEY), episodes=config.test_tasks)
        for kernel in config.test_kernels
    }
    return {kernel: summary(metrics) for kernel, metrics in found.items() if metrics is not None}


def draw(run: Run, name: str, config: Config, learner: MetaLearner, params: Params) -> None:
    """Predictions for three curves beside the exact ones, and the learning curve."""
    keys = jax.random.split(jax.random.key(FIGURE_KEY), 3)
    episodes = jax.vmap(TASKS[config.kernel]())(keys)
    exact = posterior_of(config.kernel, keys, episodes) if config.kernel in KERNELS else None
    bands = partial(draw_bands, name, learner, per_seed(params)[0], episodes, exact)
    run.picture("bands", bands, size=(9, 7 if exact else 3))
    run.picture("learning_curve", partial(draw_curve, run), size=(6, 4))


if __name__ == "__main__":
    cli.command_line(main, Config, complete=complete)
