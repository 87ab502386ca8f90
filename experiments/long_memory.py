"""Two tasks that need a long memory: a comparison of LSTM, GRU and plain RNN.

`adding` shows pairs of a number and a mark of 0 or 1. The net predicts the sum of the two numbers
with mark 1 (Hochreiter, Schmidhuber 1997). A net without memory answers 1 and has an error of 1/6.
`copy` shows ten symbols, and the net repeats them after a delay. All cells have the same width,
data, optimiser and number of steps. Scores are those of the last parameters.

Command: scripts/run long_memory [--preset copy] [--seeds 3]
Runtime: adding 6 minutes for 3 seeds on one of two busy CPU cores
Result: adding, 3 seeds: squared error 0.00028 (LSTM), 0.00015 (GRU), 0.098 (RNN, not learnt); copy
    is not yet measured
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from experiments.reports.long_memory import draw_curve, draw_sample, report
from jaxdl.data.sets.sequences import ADDING_BASELINE, adding, copying, copying_baseline
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.recipes import cells
from jaxdl.recipes.cells import Task
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    Positive,
    Range,
    RunFlags,
    Seeds,
    Start,
    Validation,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import Former
from jaxdl.runs.run import Run
from jaxdl.train.streams import task_stream
from jaxdl.types import Array, Batch, Metrics

SYMBOLS, COUNT = 8, 10
"""Different symbols, and symbols per sequence, of the copy task."""
TEST_KEY, VALIDATION_KEY = 1_000_001, 1_000_002
"""Keys that no training seed has. Every cell and seed is evaluated on the same examples."""
FORMER = Former("sequences", {"data_dir": None})
"""Older runs were made by `scripts/run sequences --preset adding`."""


@dataclasses.dataclass(frozen=True)
class Config:
    task: Literal["adding", "copy"] = "adding"
    """The task: the sum of two marked numbers, or ten symbols to repeat after a delay."""
    cell: tuple[Literal["lstm", "gru", "rnn"], ...] = ("lstm", "gru", "rnn")
    """Cells to compare. Each is a part of the run."""
    length: AtLeastTwo = 100
    """Steps per adding problem, or steps of the delay in the copy task."""
    hidden: Count = 64
    """Units of the state."""
    layers: Count = 1
    """Number of layers."""
    lr: Positive = 0.003
    """Adam's learning rate at the start."""
    decay_steps: Natural = 4000
    """Steps in which the learning rate falls to 0 along a cosine. 0 keeps it constant."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    steps: Count = 4000
    """Training steps per cell."""
    batch: Count = 64
    """Sequences per step, over all devices."""
    validation: Validation = Validation(1000, eval_every=200)
    """Validation sequences are drawn, so no training data are held out."""
    test: Count = 10_000
    """Number of test sequences to draw."""
    start: Start = Start()
    """Weights of one net. Choose one --cell for it."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


PRESETS = {"adding": Config(), "copy": Config(task="copy", hidden=128)}


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    options: dict[str, Any] = {"label": config.task, "check": check, "former": FORMER}
    return run_experiment("long_memory", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    Range(1).refuse("validation", config.validation.validation)
    seeds_below(config.random, TEST_KEY)
    cells.check_cells(config.cell, config.start)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains and tests each cell, and draws the pictures."""
    task = drawn(config)
    result, answers = cells.compare(run, task, flat(config), config.start)
    run.picture("learning_curve", partial(draw_curve, run, result), size=(6, 4))
    first = task.transform(task.test[0][0]), np.asarray(task.test[1][0])
    run.picture("sample", partial(draw_sample, config.task, *first, answers), size=(9, 3.6))
    return run.finish({**result, "split": "sequences drawn anew, by keys that no training has"})


def drawn(config: Config) -> Task:
    """The adding problem or the copy task. Validation and test examples are drawn once."""
    add = config.task == "adding"
    sizes = {"symbols": SYMBOLS, "count": COUNT}
    sample = adding(length=config.length) if add else copying(delay=config.length, **sizes)
    draw = jax.jit(jax.vmap(sample))

    def some(seed: int, count: int) -> tuple[Array, Array]:
        batch: Batch = draw(jax.random.split(jax.random.key(seed), count))
        return batch.x, batch.y

    return Task(
        task_stream(sample, config.batch),
        some(VALIDATION_KEY, config.validation.validation),
        some(TEST_KEY, config.test),
        lambda x: x,
        mean_squared_error if add else recall,
        out=1 if add else SYMBOLS + 1,
        output="last" if add else "all",
        baseline=ADDING_BASELINE if add else copying_baseline(delay=config.length, **sizes),
    )


def recall(prediction: Array, target: Array, weight: Array | None = None) -> tuple[Array, Metrics]:
    """Cross-entropy over all steps, and the accuracy on the repeated symbols."""
    loss, metrics = cross_entropy(prediction, target, weight)
    asked = cross_entropy(prediction[:, -COUNT:], target[:, -COUNT:], weight)[1]
    return loss, {**metrics, "accuracy": asked["accuracy"]}


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
