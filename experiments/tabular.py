"""A transformer classifies small tables in context, trained on synthetic tables alone.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl import parallel
from jaxdl.data.sets.tables import tables
from jaxdl.losses import cross_entropy
from jaxdl.optim.schedules import warmup_cosine
from jaxdl.recipes.meta_training import meta_train, one_on_cpu, validation_of
from jaxdl.recipes.tabular import learner_of_tables, prior, whole
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
from jaxdl.runs.run import Run
from jaxdl.types import MetaLearner, Params

VALIDATION_KEY = 1_000_001
"""A key apart from all training seeds."""


@dataclasses.dataclass(frozen=True)
class Config:
    steps: Count = 2500
    """Training steps."""
    tasks: Count = 6
    """Draws of the prior per step. Each has a table of each size."""
    lr: Positive = 0.002
    """Largest learning rate of Adam. It rises from 0 and falls to 0 along a cosine."""
    warmup: Natural = 150
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
    eval_every: Count = 500
    """Steps between validations, a multiple of --log-every."""
    start: Start = Start()
    """Weights to start from."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=50))


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    options: dict[str, Any] = {"check": check}
    options |= {"prepare": partial(parallel.split_cores, config.tasks, config.run.devices)}
    return run_experiment("tabular", config, experiment, str, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    seeds_below(config.random, VALIDATION_KEY)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    learner = learner_of_tables(flat(config))
    params = train(config, run, learner)
    return run.finish({"config": flat(config)})


def train(config: Config, run: Run, learner: MetaLearner) -> Params:
    """Trains all seeds in one program; the parameters have a leading axis `[seeds]`."""
    if not config.decay_steps:
        refuse_other_steps(run.directory, config.steps, "decay_steps")
    rate = warmup_cosine(config.lr, config.warmup, config.decay_steps or config.steps)
    values = flat(config)
    return meta_train(
        run,
        learner,
        prior(values),
        tx=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        keys=jax.vmap(jax.random.key)(config.random.seed + jnp.arange(config.random.seeds)),
        x=jnp.zeros((2, config.features)),
        tasks=config.tasks,
        chunk=one_on_cpu(None),
        start=config.start,
        validate=validation_of(
            learner,
            cross_entropy,
            tables(**whole(values)),
            key=jax.random.key(VALIDATION_KEY),
            episodes=config.validation_tasks,
            steps=None,
            chunk=one_on_cpu(None),
        ),
        eval_every=config.eval_every,
    )


if __name__ == "__main__":
    cli.command_line(main, Config)
