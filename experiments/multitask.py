"""Two overlaid digits in one net: fourteen ways to combine the gradients of two tasks.

MultiMNIST (arXiv:1710.09829, arXiv:1810.04650) puts two digits on one canvas. Each digit is a task.
A LeNet is the shared trunk, and each task has a small head. Every method of `jaxdl.multitask`
trains this net. The baseline is two nets of one task each. All methods have the same learning rate,
for Adam, and the settings of their papers. The last 5,000 training images are held out for
validation. Scores are those of the last parameters.

Command: scripts/run multitask
Runtime: 46 minutes on one of two busy CPU cores
Result: mean test accuracy in %, 3 seeds: two single nets 97.64; one net with equal weights 97.09,
    with the thirteen other methods 96.89 (mgda) to 97.25 (uncertainty)
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.reports.multitask import draw_accuracy, draw_samples, report
from jaxdl.data.augment import normalise
from jaxdl.data.sets.images import STATISTICS, image_splits
from jaxdl.data.sets.multimnist import overlaid_epochs, overlaid_pairs
from jaxdl.models.lenet import lenet
from jaxdl.models.mlp import mlp
from jaxdl.recipes.many_tasks import METHODS, Problem, check_methods, compare
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
from jaxdl.runs.run import Run
from jaxdl.types import Array, Model

PAIRS = 20_241_017
"""The seed of the validation and test pairs. It is the same for all runs."""


@dataclasses.dataclass(frozen=True)
class Config:
    case: Literal["overlaid"] = "overlaid"
    """The problem: two overlaid digits. Each digit is a task."""
    methods: tuple[str, ...] = ()
    """Methods that combine task gradients, equal among them. By default all methods."""
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
    return run_experiment("multitask", config, experiment, report, label=config.case, check=check)


def check(config: Config) -> None:
    """Validates the configuration."""
    check_methods(methods_of(config), config.validation.validation)


def methods_of(config: Config) -> tuple[str, ...]:
    """The methods of a configuration."""
    return config.methods or tuple(METHODS)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains the single nets, and the shared net with each method, and draws the pictures."""
    problem = load(config)
    net = trunk(), mlp((50, problem.classes))
    result, logits = compare(run, problem, *net, methods_of(config), flat(config), config.start)
    run.picture("accuracy", partial(draw_accuracy, result), size=(7.5, 5.5))
    canvases, labels = map(np.asarray, problem.test)
    samples = partial(draw_samples, canvases, labels, logits[0].argmax(axis=-1))
    run.picture("samples", samples, size=(11, 7))
    split = split_of("MNIST", config.validation.validation)
    return run.finish({**result, "split": split})


def load(config: Config) -> Problem:
    """Pairs of digits on one canvas, on the device."""
    held_out = config.validation.validation
    data = image_splits("mnist", validation=held_out, data_dir=config.data_dir)
    options: dict[str, Any] = {"batch": config.batch, "transform": as_seen}
    stream = overlaid_epochs(*data["train"][:2], **options)
    validation, test = (
        overlaid_pairs(jax.random.key(PAIRS), *data[part][:2]) for part in ("validation", "test")
    )
    return Problem(("left", "right"), 10, stream, validation, test, as_seen)


def as_seen(image: Any) -> Array:
    """The input of a net from a uint8 image."""
    return normalise(image, *STATISTICS["mnist"])


def trunk() -> Model:
    """The trunk of the shared net, and of each single net: LeNet up to its 50 features."""
    return lenet(50, torch_init=False)


if __name__ == "__main__":
    cli.command_line(main, Config, moved={"--case binary": "many_questions"})
