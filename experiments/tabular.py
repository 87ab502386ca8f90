"""A transformer classifies small tables in context, and trains on synthetic tables alone.

The learner reads labelled rows and classifies others, without a gradient step (TabPFN, Hollmann et
al. 2023 and 2025, at the size of nanoTabPFN, arXiv:2511.03634). It trains on tables drawn from a
prior, in the same compiled program. Then it is judged on iris, wine, breast cancer and digits, of
which each split has 100 rows to learn from, 50 to classify and at most 20 columns. Classifiers of
scikit-learn with their defaults stand beside it, on the same splits.

Command: scripts/run tabular [--preset nano]
Runtime: a step takes about 0.5 s of CPU time on shared cores (AMD EPYC), and compiling two minutes
Result: ROC AUC and accuracy on each table beside the four classifiers; docs/results.md has them
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reports.tabular import draw_curve, report
from jaxdl import parallel
from jaxdl.data.sets.real_tables import TABLES, random_split, real_table
from jaxdl.data.sets.tables import tables
from jaxdl.errors import extra
from jaxdl.losses import cross_entropy
from jaxdl.models.tabular import tabular_transformer
from jaxdl.recipes.meta_training import Validate, meta_train, one_on_cpu, validation_of
from jaxdl.recipes.table_baselines import BASELINES, baseline
from jaxdl.recipes.tabular import (
    classify,
    learner_of_tables,
    optimiser,
    prior,
    probabilities,
    roc_auc,
    whole,
)
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    Positive,
    RunFlags,
    Seeds,
    Start,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import refuse_other_steps
from jaxdl.runs.run import Run, say
from jaxdl.train.loop import per_seed
from jaxdl.train.streams import run_keys
from jaxdl.types import MetaLearner, Params, TrainState

VALIDATION_KEY = 1_000_001
"""A key apart from all training seeds."""
ROWS, TESTS = 100, 50
"""Rows of a real table to learn from, and to classify."""


@dataclasses.dataclass(frozen=True)
class Config:
    steps: Count = 4000
    """Training steps."""
    tasks: Count = 4
    """Draws of the prior per step. Each has a table of each size."""
    lr: Positive = 0.002
    """Largest learning rate of Adam. It rises from 0 and falls to 0 along a cosine."""
    warmup: Natural = 100
    """Steps in which the learning rate rises."""
    decay_steps: Natural = 0
    """Steps until the learning rate is 0. 0: those of the training."""
    features: Count = 20
    """The most columns of a table."""
    classes: AtLeastTwo = 10
    """The most classes of a table."""
    shots: Count = 100
    """The most labelled rows of a synthetic table."""
    least_shots: AtLeastTwo = 20
    """The fewest labelled rows of a synthetic table."""
    queries: Count = 30
    """Rows of a synthetic table to classify."""
    sizes: Count = 2
    """Tables per draw of the prior. Each has at most a quarter of the columns and classes of the
    one before."""
    width: Count = 64
    """Width of a token."""
    heads: Count = 2
    """Heads of attention."""
    layers: Count = 3
    """Layers of attention."""
    group: Count = 4
    """Columns per token."""
    splits: AtLeastTwo = 20
    """Random splits of each real table."""
    members: Count = 8
    """Random orders of columns and classes, over which a prediction is a mean."""
    validation_tasks: AtLeastTwo = 200
    """Synthetic tables of each validation, which are never trained on."""
    eval_every: Count = 400
    """Steps between validations, a multiple of --log-every."""
    start: Start = Start()
    """Weights to start from."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=50))


PRESETS = {
    "small": Config(),
    # The sizes of nanoTabPFN: a token per cell, two classes and 150 rows.
    "nano": Config(
        features=5,
        classes=2,
        queries=50,
        sizes=1,
        tasks=32,
        width=96,
        heads=4,
        group=1,
        lr=0.004,
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    options: dict[str, Any] = {"check": check, "label": f"{config.features}-{config.classes}"}
    options |= {"prepare": partial(parallel.split_cores, config.tasks, config.run.devices)}
    return run_experiment("tabular", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    tabular_transformer(
        config.classes, width=config.width, heads=config.heads, features=config.features
    )
    tables(**whole(flat(config)))
    seeds_below(config.random, VALIDATION_KEY)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Training, evaluation, and the learning curve."""
    with extra("data"):
        import sklearn  # noqa: F401  before the training, and not after it
    learner = learner_of_tables(flat(config))
    params = train(config, run, learner)
    names = [name for name in TABLES if fits(name, config)]
    result = {
        "scores": {name: judged(config, learner, params, name) for name in names},
        "synthetic": validation(config, learner)(TrainState(jnp.int32(0), params, ())),
        "rows": [ROWS, TESTS],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(per_seed(params)[0])),
        "split": "tables of scikit-learn, which training never saw",
        "batch_norm": "none",
        "config": flat(config),
    }
    run.picture("learning_curve", partial(draw_curve, run), size=(6, 4))
    return run.finish(result)


def train(config: Config, run: Run, learner: MetaLearner) -> Params:
    """Trains all seeds in one program; the parameters have a leading axis `[seeds]`."""
    if not config.decay_steps:
        refuse_other_steps(run.directory, config.steps, "decay_steps")
    return meta_train(
        run,
        learner,
        prior(flat(config)),
        tx=optimiser(flat(config)),
        keys=run_keys(config.random.seed, config.random.seeds),
        x=jnp.zeros((2, config.features)),
        tasks=config.tasks,
        chunk=one_on_cpu(None),
        start=config.start,
        validate=validation(config, learner),
        eval_every=config.eval_every,
    )


def validation(config: Config, learner: MetaLearner) -> Validate:
    """The loss and the accuracy of each seed on synthetic tables that are never trained on."""
    return validation_of(
        learner,
        cross_entropy,
        tables(**whole(flat(config))),
        key=jax.random.key(VALIDATION_KEY),
        episodes=config.validation_tasks,
        steps=None,
        chunk=one_on_cpu(None),
    )


def fits(name: str, config: Config) -> bool:
    """Whether the net was trained for as many classes as a table has."""
    return len(np.unique(real_table(name)[1])) <= config.classes


def judged(
    config: Config,
    learner: MetaLearner,
    params: Params,
    name: str,
    baselines: Sequence[str] = tuple(BASELINES),
) -> dict[str, dict[str, Any]]:
    """AUC and accuracy on a real table, `[seeds, splits]`, of the learner and of the baselines."""
    say(f"test on {name}")
    table, predict = real_table(name), probabilities(learner)
    sizes: dict[str, Any] = {"rows": ROWS, "tests": TESTS, "columns": config.features}
    splits = [random_split(*table, seed=split, **sizes) for split in range(config.splits)]

    def of_net(params: Params, seed: int) -> np.ndarray:
        answer = partial(classify, predict, params, flat(config), *splits[seed][:3])
        return answer(seed=seed, members=config.members)

    def of_baseline(method: str, seed: int) -> np.ndarray:
        x, y, test_x, _ = splits[seed]
        return baseline(method, seed).fit(x, y).predict_proba(test_x)

    def scores(answers: Callable[[int], np.ndarray]) -> list[tuple[float, float]]:
        found = [(split.test_y, answers(seed)) for seed, split in enumerate(splits)]
        return [(roc_auc(y, each), float(np.mean(each.argmax(1) == y))) for y, each in found]

    def by_metric(of_seeds: list[list[tuple[float, float]]]) -> dict[str, Any]:
        return dict(zip(("auc", "accuracy"), np.moveaxis(np.asarray(of_seeds), 2, 0), strict=True))

    found = {"tabular": by_metric([scores(partial(of_net, each)) for each in per_seed(params)])}
    return found | {
        method: by_metric([scores(partial(of_baseline, method))]) for method in baselines
    }


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
