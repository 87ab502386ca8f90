"""Learning from few labels: from scratch, augmented, by transfer, from a MAML initialisation.

Four methods train the same net on 1, 5, 20, 100 or all labels per class. Transfer starts from a
classifier of other images: Omniglot for MNIST, CIFAR-100 for CIFAR-10. MAML (arXiv:1703.03400)
starts from parameters that are meta-trained on the same images. Then all methods have the same
training by Adam. Learning rate and number of steps are chosen on validation examples, for all
methods. There are more validation examples than the small counts have labels.

Command: scripts/run limited_data [--data omniglot]
Runtime: 30 minutes on one of two busy CPU cores
Result: MNIST, 3 seeds, test accuracy in % with 5 labels per class: from scratch 72.0, augmented
    88.6, transfer 78.7, MAML 81.7
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.reports.limited_data import METHODS, report
from jaxdl.data.augment import flip, translate
from jaxdl.data.pixels import white
from jaxdl.data.subsets import ALL, size
from jaxdl.data.warp import affine
from jaxdl.models.lenet import lenet
from jaxdl.optim.transfer import with_new_head
from jaxdl.recipes import few_labels
from jaxdl.recipes.few_labels import Problem, Training, classes_of, plain, seen
from jaxdl.recipes.problems import ALONE, other_source
from jaxdl.report import pictures
from jaxdl.runs import cli
from jaxdl.runs.config import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Rate,
    RunFlags,
    Seeds,
    Start,
    flat,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import Former
from jaxdl.runs.run import Run, say
from jaxdl.runs.weights import from_weights
from jaxdl.types import Array, Key, Model, Params

COUNTS = {
    "mnist": (1, 5, 20, 100, 0),
    "cifar10": (1, 5, 20, 100, 0),
    "omniglot": (1, 5, 10, 0),
    "digits": (1, 5, 20, 0),
}
HEAD = "Dense_2"
"""The name of LeNet's last layer. Transfer starts it from random weights."""
FORMER = Former(
    "limited_data",
    {"widths": (4, 16, 64, 256, 1024), "width_steps": 2000, "width_lr": 0.001},
    ignored=("widths", "width_steps", "width_lr"),
)
"""Older runs trained the nets of `capacity`, too."""
MOVED = dict.fromkeys(("--widths", "--width-steps", "--width-lr"), "capacity")


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["mnist", "omniglot", "cifar10", "digits"] = "mnist"
    """Data set (source: Omniglot for MNIST, CIFAR-100 for CIFAR-10). `digits` has no download."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    counts: tuple[Natural, ...] = ()
    """Labels per class, rising (0 for all). By default 1 5 20 100 0 for MNIST and CIFAR-10."""
    steps: Count = 400
    """Training steps per method."""
    batch: Count = 64
    """Examples per step."""
    rates: tuple[Positive, ...] = (0.0003, 0.001, 0.003)
    """Learning rates of Adam to choose from."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay of the augmented method."""
    dropout: Rate = 0.3
    """Dropout rate of the augmented method, after both hidden dense layers."""
    start: Start = Start()
    """Weights whose trunk replaces the training on the source, for transfer. The head is new."""
    source_steps: Count = 3000
    """Training steps on the source, for transfer."""
    meta_steps: Count = 2000
    """Meta-training steps on the source, for MAML."""
    tasks: Count = 4
    """Tasks per meta-training step, with 1 support and 3 query examples per class."""
    inner_lr: Positive = 0.4
    """Learning rate of the one inner step of MAML."""
    lr: Positive = 0.003
    """Adam's learning rate on the source, also in meta-training."""
    eval_every: Count = 100
    """Steps between validations, a multiple of --log-every."""
    random: Seeds = Seeds(seeds=3)
    """Each seed has other labelled examples and another initialisation."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    options: dict[str, Any] = {"label": config.data, "check": check, "former": FORMER}
    return run_experiment("limited_data", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    few_labels.check_counts(counts_of(config))
    few_labels.check_rates(config.rates)


def counts_of(config: Config) -> tuple[int, ...]:
    """Labels per class. 0 stands for all."""
    return config.counts or COUNTS[config.data]


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains twice on the source, then all four methods, and draws the picture."""
    problem, counts = other_source(config.data, config.data_dir), counts_of(config)
    few_labels.check_sizes(problem, counts, config.data)
    training = few_labels.training_of(
        config.random,
        batch=config.batch,
        eval_every=config.eval_every,
        devices=config.run.devices,
    )
    starts = starts_of(config, run, problem, training)
    methods = {}
    for name in METHODS:
        regular = name == "augmented"
        methods[name] = few_labels.learn(
            run.part(name),
            problem,
            net(classes_of(problem), config.dropout if regular else 0.0),
            starts[name],
            training,
            counts=counts,
            rates=config.rates,
            optimiser=few_labels.adamw(weight_decay=config.weight_decay if regular else 0.0),
            transform=augmentation(config) if regular else plain,
        )
        say(f"{METHODS[name]}: test accuracy {np.mean(methods[name]['test'], axis=1).round(4)}")
    result = {
        "methods": methods,
        "counts": counts,
        "examples": [float(size(problem.train, n or ALL)) / classes_of(problem) for n in counts],
        "images": {name: len(getattr(problem, name)[1]) for name in ("validation", "test")},
        "split": ALONE[config.data],
        "batch_norm": "none",
        "config": flat(config),
    }
    run.picture("accuracy", partial(pictures.accuracy_by_count, result, METHODS), size=(6.5, 4.5))
    return run.finish(result)


def augmentation(config: Config) -> Callable[[Key, Array], Array]:
    """Photographs are flipped and shifted. Characters are rotated, zoomed and shifted."""

    def photograph(key: Key, image: Array) -> Array:
        flip_key, move_key = jax.random.split(key)
        return seen(translate(move_key, flip(flip_key, image), pixels=4))

    def character(key: Key, image: Array) -> Array:
        return affine(key, image, degrees=15, zoom=0.1, pixels=2) / white(image)

    return photograph if config.data == "cifar10" else character


def net(classes: int, dropout: float = 0.0) -> Model:
    """LeNet. It has no batch norm, so no prediction depends on another example."""
    return lenet(classes, dropout=dropout, torch_init=False)


def starts_of(config: Config, run: Run, problem: Problem, training: Training) -> dict[str, Params]:
    """The initial parameters `[seeds]` of each method. Two methods need a training for them."""
    model, given = net(classes_of(problem)), config.start
    start = few_labels.fresh(problem, model, training.keys)
    if given.init_from is None:
        part = run.part("source", config.source_steps)
        classifier = net(int(problem.source[1].max()) + 1)
        source = few_labels.pretrained(part, problem.source, classifier, training, lr=config.lr)
        transferred = with_new_head(source, start, head=HEAD)
    else:
        transferred, _ = from_weights(given.init_from, (HEAD, *given.init_except), start)
    meta = few_labels.meta_trained(
        run.part("meta", config.meta_steps),
        problem,
        model,
        training,
        tasks=config.tasks,
        inner_lr=config.inner_lr,
        lr=config.lr,
    )
    return {"scratch": start, "augmented": start, "transfer": transferred, "maml": meta}


if __name__ == "__main__":
    cli.command_line(main, Config, moved=MOVED)
