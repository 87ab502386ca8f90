"""Ten questions about one digit: one net with ten heads, compared to ten nets.

Task d is the question "is this MNIST image a d?". One LeNet is the shared trunk of ten heads. The
baseline is ten nets of one task each. Any method of `jaxdl.multitask` can combine the gradients.
The last 5,000 training images are held out for validation. Scores are those of the last parameters.

Command: scripts/run many_questions
Runtime: 11 minutes on one of two busy CPU cores
Result: F1 in %, 3 seeds: ten nets 98.66, one net 98.84, with 15 % of the parameters
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from experiments.reports.many_questions import draw_questions, report
from jaxdl.data.augment import normalise
from jaxdl.data.epochs import epochs
from jaxdl.data.sets.images import STATISTICS, image_splits
from jaxdl.models.lenet import lenet
from jaxdl.models.mlp import mlp
from jaxdl.recipes.many_tasks import Problem, check_methods, compare
from jaxdl.recipes.supervised import split_of
from jaxdl.runs import cli
from jaxdl.runs.config import (
    Count,
    Natural,
    Positive,
    RunFlags,
    Seeds,
    Start,
    Validation,
    flat,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import Former
from jaxdl.runs.run import Run
from jaxdl.types import Array, Model

FORMER = Former("multitask")
"""Older runs were made by `scripts/run multitask --case binary`."""


@dataclasses.dataclass(frozen=True)
class Config:
    case: Literal["binary"] = "binary"
    """The problem: one digit, and ten questions about it."""
    methods: tuple[str, ...] = ()
    """Methods that combine task gradients. They must contain equal, the default."""
    steps: Count = 2000
    """Training steps per method."""
    batch: Count = 64
    """Images per step, over all devices."""
    lr: Positive = 0.002
    """Adam's learning rate at the start, for all nets and methods."""
    decay_steps: Natural = 2000
    """Steps in which the learning rate falls to 0 along a cosine. 0 keeps it constant."""
    validation: Validation = Validation()
    probes: Count = 20
    """Batches per validation on which conflicts of task gradients are counted."""
    start: Start = Start()
    """Weights that the shared net starts from, with every method. For a run, give the directory
    of one method, for example DIRECTORY/equal."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    random: Seeds = Seeds(seeds=3)
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    return run_experiment(
        "many_questions", config, experiment, report, label=config.case, check=check, former=FORMER
    )


def check(config: Config) -> None:
    """Validates the configuration."""
    check_methods(methods_of(config), config.validation.validation)


def methods_of(config: Config) -> tuple[str, ...]:
    """The methods of a configuration."""
    return config.methods or ("equal",)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains the single nets, and the shared net with each method, and draws the pictures."""
    problem = load(config)
    net = trunk(), mlp((50, problem.classes))
    result, _ = compare(run, problem, *net, methods_of(config), flat(config), config.start)
    run.picture("f1", partial(draw_questions, result), size=(7.5, 4.5))
    split = split_of("MNIST", config.validation.validation)
    return run.finish({**result, "split": split})


def load(config: Config) -> Problem:
    """Single digits and the answers to all questions, on the device."""
    held_out = config.validation.validation
    data = image_splits("mnist", validation=held_out, data_dir=config.data_dir)
    train = data["train"]
    options: dict[str, Any] = {"batch": config.batch, "transform": lambda key, x: as_seen(x)}
    stream = epochs(train.images, questions(train.labels), **options)
    validation, test = (
        (jnp.asarray(data[part].images), jnp.asarray(questions(data[part].labels)))
        for part in ("validation", "test")
    )
    return Problem(train.class_names, 2, stream, validation, test, as_seen)


def questions(labels: np.ndarray) -> np.ndarray:
    """Digits `[n]` as the answers `[n, 10]` to "is it a d?", 0 or 1."""
    return (labels[:, None] == np.arange(10)).astype(np.int32)


def as_seen(image: Any) -> Array:
    """The input of a net from a uint8 image."""
    return normalise(image, *STATISTICS["mnist"])


def trunk() -> Model:
    """The trunk of the shared net, and of each single net: LeNet up to its 50 features."""
    return lenet(50, torch_init=False)


if __name__ == "__main__":
    cli.command_line(main, Config)
