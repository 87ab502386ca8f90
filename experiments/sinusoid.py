"""MAML on sine waves: the regression experiment of the MAML paper (section 5.1, arXiv:1703.03400).

A task is a sine wave of random amplitude and phase. The net sees K points of it and predicts the
rest. The recipe is that of the authors' code: 70,000 meta-steps of 25 tasks, K = 10, one inner step
with learning rate 0.001, Adam with 0.001. One thing differs: the kernels start by LeCun's rule
(`--init code` has theirs). The baseline is the paper's: the same net is trained on all tasks
jointly, then fine-tuned on the K points. Its learning rate is chosen on validation tasks.

Command: scripts/run sinusoid
Runtime: 1 minute on a CPU core; 3 seeds take 96 s
Result: mean squared error on 5-shot tasks after 1 / 5 / 10 steps, see docs/results.md
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports._departures import departures
from experiments.reports.sinusoid import (
    PAPER,
    PUBLISHED,
    SHOTS,
    depths_of,
    draw_curve,
    draw_task,
    report,
)
from jaxdl import parallel
from jaxdl.data.sets.sinusoid import sinusoid, sinusoid_task
from jaxdl.losses import mean_squared_error
from jaxdl.meta.base import evaluate
from jaxdl.recipes.blocks import in_blocks
from jaxdl.recipes.choice import Choice, find, from_arguments, own_keywords
from jaxdl.recipes.few_shot import learner_of_sines
from jaxdl.recipes.gradient_learners import maml_of_curves
from jaxdl.recipes.grid import Experiment, run_grid
from jaxdl.recipes.learners import REGRESSORS
from jaxdl.recipes.meta_training import meta_train
from jaxdl.recipes.plans import plan_of_sines
from jaxdl.recipes.rates import best_rate
from jaxdl.report.intervals import mean_ci95
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Positive,
    RunFlags,
    Seeds,
    Start,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.grid import Grid
from jaxdl.runs.identity import added
from jaxdl.runs.run import Run
from jaxdl.train.loop import per_seed
from jaxdl.train.streams import run_keys
from jaxdl.types import MetaLearner, Params

FINE_TUNING_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds, the same for every learner and seed."""
BLOCK = 6000
"""Test tasks that are computed at once."""


@dataclasses.dataclass(frozen=True)
class Config:
    learner: str = added("maml")
    """Learner: maml, fomaml, anil, meta_sgd, meta_curvature, maml_pp, es_maml, cavia, imaml,
    reptile, r2d2, lstm_learner, cnp, canp, lnp, anp, tnp_d, or path/to/mine.py:my_learner. Each has
    flags of its own."""
    steps: Count = 70_000
    """Meta-training steps."""
    tasks: Count = 25
    """Tasks per step."""
    shots: Count = 10
    """Support points, and as many query points, in a training task."""
    init: Literal["lecun", "code"] = "lecun"
    """Initialiser of the kernels. `code` is that of the authors' code: a normal distribution of
    standard deviation 0.01, with which 1 seed in 5 hardly learns."""
    lr: Positive = 0.001
    """Learning rate of the outer Adam."""
    method: Any = dataclasses.field(default_factory=own_keywords(maml_of_curves))
    test_tasks: AtLeastTwo = 6000
    """Tasks of the final evaluation."""
    start: Start = Start()
    """Weights that both trainings start from."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=500))


complete = partial(from_arguments, learners=REGRESSORS)
"""Adds the flags of the learner."""


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    choice = find(config.learner, REGRESSORS)
    train = partial(experiment, choice)
    return run_experiment("sinusoid", config, train, report, **frame(choice, config))


def grid(configs: Sequence[Config], asked: Grid) -> None:
    """Trains a configuration per combination of hyper-parameters, and tests the best."""
    choice = find(configs[0].learner, REGRESSORS)
    plan = partial(plan_of_sines, choice, VALIDATION_KEY)
    own = partial(frame, choice), plan, lambda config, run: choice.keep(run)
    run_grid(Experiment("sinusoid", main, *own), configs, asked)


def departures_of(config: Config) -> list[str]:
    """Where a run is another than that of MAML's paper, whose figures stand beside its own."""
    names = ("steps", "tasks", "shots", "lr", "inner_steps", "inner_lr")
    return departures(flat(config), flat(Config()), names) if config.learner in PUBLISHED else []


def frame(choice: Choice, _: Config) -> dict[str, Any]:
    """The options of `run_experiment`."""
    options: dict[str, Any] = {"check": check, "prepare": parallel.one_thread}
    return {"label": choice.name * (choice.name != "maml"), "contents": choice.contents, **options}


def check(config: Config) -> None:
    """Validates the configuration."""
    seeds_below(config.random, TEST_KEY)


def experiment(choice: Choice, config: Config, run: Run) -> dict[str, Any]:
    """Both trainings, their evaluation and the pictures."""
    learner = learner_of_sines(flat(config), make=choice.make)
    jointly = partial(learner_of_sines, flat(config), make=maml_of_curves)
    choice.check(learner, sinusoid(shots=10, queries=10), mean_squared_error)
    choice.keep(run)
    params = train(config, run, learner)
    pretrained = train(config, run.part("pretrained"), jointly(inner_steps=0))

    rate = best_rate(
        lambda rate: jointly(inner_lr=rate),
        FINE_TUNING_RATES,
        pretrained,
        mean_squared_error,
        sinusoid(shots=5, queries=5),
        key=jax.random.key(VALIDATION_KEY),
        episodes=600,
        metric="loss",
        steps=10,
    )
    fine_tuned = jointly(inner_lr=rate)
    lecun = "kernels start by LeCun's rule; in the code with a standard deviation of 0.01"
    result = {
        choice.name: errors(config, learner, params),
        "pretrained": errors(config, fine_tuned, pretrained),
        "fine_tuning_rate": rate,
        "paper": PAPER,
        "split": "test tasks drawn anew from the training distribution",
        "batch_norm": "none",
        "deviations": [*[lecun] * (config.init == "lecun"), *departures_of(config)],
        "config": flat(config),
    }
    title = "MAML" if choice.name == "maml" else choice.name
    draw(run, {title: (learner, params), "pretrained, fine-tuned": (fine_tuned, pretrained)})
    return run.finish(result)


def train(config: Config, run: Run, learner: MetaLearner) -> Params:
    """Meta-trains all seeds in one program; the parameters have a leading axis `[seeds]`."""
    return meta_train(
        run,
        learner,
        sinusoid(shots=config.shots, queries=config.shots),
        tx=optax.adam(config.lr),
        keys=run_keys(config.random.seed, config.random.seeds),
        x=jnp.zeros((2, 1)),
        tasks=config.tasks,
        chunk=None,
        start=config.start,
    )


def errors(config: Config, learner: MetaLearner, params: Params) -> list[dict[str, Any]]:
    """For each seed: mean, 95 % interval and median of the error, by shots and inner steps."""
    tables: list[dict[str, Any]] = [{} for _ in per_seed(params)]
    depths = depths_of(flat(config))
    for shots in SHOTS:
        sample = sinusoid(shots=shots, queries=shots)
        test = partial(evaluate, learner, mean_squared_error, sample, depths=depths)
        measure = in_blocks(test, config.test_tasks, f"testing {shots}-shot tasks", most=BLOCK)
        losses = measure(jax.random.key(TEST_KEY), per_seed(params))["loss"]
        for table, values in zip(tables, losses, strict=True):
            for steps, row in zip(depths, values, strict=True):
                mean, half = mean_ci95(row)
                median = float(np.median(row))
                table[f"{shots}-shot/{steps}"] = {"mean": mean, "ci95": half, "median": median}
    return tables


def draw(run: Run, learnt: dict[str, tuple[MetaLearner, Params]]) -> None:
    """The paper's figure 2 (one task, before and after adaptation) and the learning curves."""
    key = jax.random.key(FIGURE_KEY)
    wave, support = sinusoid_task(key), sinusoid(shots=5, queries=1)(key).support
    run.picture("task", partial(draw_task, key, wave, support, learnt), size=(9, 4.2))
    run.picture("learning_curve", partial(draw_curve, run, next(iter(learnt))), size=(6, 4))


if __name__ == "__main__":
    cli.command_line(main, Config, complete=complete, grid=grid)
