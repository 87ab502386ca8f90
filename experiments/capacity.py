"""Underfitting and overfitting: dense nets of rising width, with few labels and with all.

Nets with one hidden layer learn the same data. All nets memorise few examples, so the gap between
training and test is large. Narrow nets underfit if there are many examples. All nets train from
scratch for a fixed number of steps. No hyperparameter is chosen by validation.

Command: scripts/run capacity [--data omniglot]
Runtime: 4 minutes for 3 seeds on one of two busy CPU cores
Result: MNIST, 3 seeds, 1,024 units: with 5 labels per class the net memorises them and is right on
    68.5 % of the test images; with all labels the gap is 1.0 points
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.reports.capacity import draw_gap, report
from jaxdl.data.subsets import cells
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.recipes import few_labels
from jaxdl.recipes.few_labels import Problem, classes_of, seen
from jaxdl.recipes.problems import ALONE, alone
from jaxdl.runs import cli
from jaxdl.runs.config import Count, Natural, Positive, RunFlags, Seeds, flat
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run
from jaxdl.train.evaluation import measure, measure_subsets


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["mnist", "omniglot", "cifar10", "digits"] = "mnist"
    """Data set to learn. `digits` needs no download."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    counts: tuple[Natural, ...] = (5, 0)
    """Two numbers of labels per class, rising. 0 stands for all."""
    widths: tuple[Count, ...] = (4, 16, 64, 256, 1024)
    """Hidden units of the nets, rising."""
    steps: Count = 2000
    """Training steps per net."""
    batch: Count = 64
    """Examples per step."""
    lr: Positive = 0.001
    """Adam's learning rate."""
    random: Seeds = Seeds(seeds=3)
    """Each seed has other labelled examples and another initialisation."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    return run_experiment("capacity", config, experiment, report, label=config.data, check=check)


def check(config: Config) -> None:
    """Validates the configuration."""
    few_labels.check_counts(config.counts)
    if len(config.counts) != 2:
        raise InputError(f"`counts={' '.join(map(str, config.counts))}`: give two counts")
    if not config.widths:
        raise InputError("`widths=`: give one number of hidden units at least")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains the nets, and draws the picture."""
    problem = alone(config.data, config.data_dir)
    few_labels.check_sizes(problem, config.counts, config.data)
    result = {
        "sizes": sizes(config, run, problem),
        "images": {"test": len(problem.test[1])},
        "split": ALONE[config.data],
        "batch_norm": "none",
        "config": flat(config),
    }
    run.picture("gap", partial(draw_gap, result), size=(9, 4.2))
    return run.finish(result)


def sizes(config: Config, run: Run, problem: Problem) -> dict[str, Any]:
    """Accuracy in training and test after the last step, `[counts, widths, seeds]`."""
    training = few_labels.training_of(config.random, batch=config.batch, devices=config.run.devices)
    found: dict[str, list[Any]] = {"train": [], "test": []}
    for width in config.widths:
        model = mlp((width, classes_of(problem)))
        runs = cells(training.keys, config.counts, (config.lr,))
        start = few_labels.fresh(problem, model, training.keys)
        params = few_labels.fit(run.part(f"width-{width}"), problem, model, runs, start, training)
        of_test = measure(without_stats(model), cross_entropy, seen, devices=training.devices)
        of_train = measure_subsets(
            without_stats(model), cross_entropy, seen, devices=training.devices
        )
        found["train"].append(of_train(params, {}, problem.train, runs.subsets)["accuracy"])
        found["test"].append(of_test(params, {}, *problem.test)["accuracy"])
    shape = len(config.widths), len(config.counts), config.random.seeds
    stacked = {name: np.reshape(np.stack(each), shape) for name, each in found.items()}
    by_count = {name: each.swapaxes(0, 1).tolist() for name, each in stacked.items()}
    return {"counts": config.counts, **by_count}


if __name__ == "__main__":
    cli.command_line(main, Config)
