"""CIFAR-10 in the shortest time: the net and the recipe of airbench94 (arXiv:2404.00498).

A small net starts from a fixed whitening layer. It trains for 475 steps with Nesterov momentum, a
triangular learning rate, label smoothing, alternating flips and lookahead, and is evaluated on six
views of each image. The authors report 94 %. The recipe needs a GPU, and its accuracy is not yet
measured here. By default no training image is held out (`--validation`).

Command: scripts/run airbench; --predict DIRECTORY shows what a run has learnt
Runtime: not yet measured; it needs a GPU
Result: not yet measured
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.airbench import report
from jaxdl.data.augment import Border
from jaxdl.data.sets.images import ImageData, image_arrays
from jaxdl.losses import cross_entropy
from jaxdl.models.airnet import airnet, with_views
from jaxdl.optim.lookahead import lookahead, with_slow
from jaxdl.recipes import cifar10 as recipe
from jaxdl.recipes import supervised
from jaxdl.recipes.cifar10 import CLASSES, as_seen
from jaxdl.runs import cli
from jaxdl.runs.config import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Range,
    Rate,
    RunFlags,
    Seeds,
    Start,
    Validation,
    flat,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import Former, added, refuse_other_steps
from jaxdl.runs.run import Run, load_config
from jaxdl.runs.stored import load_last
from jaxdl.runs.weights import started
from jaxdl.train.steps import init_states, supervised_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, StatefulModel, StepFn, TrainState

WHITENED = 5000
"""Number of training images whose patches give the first layer."""
FORMER = Former(
    "cifar10",
    {
        "net": "airnet",
        "schedule": "triangle",
        "decay_epochs": 7.0,
        "dropout": 0.0,
        "stem": "cifar",
    },
)
"""Older runs were made by `scripts/run cifar10 --preset fast`."""


@dataclasses.dataclass(frozen=True)
class Config:
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    validation: Validation = Validation(0, eval_every=475)
    """--validation 0 holds out none and trains on all training images."""
    images: Natural = 0
    """Training images to use, the first ones. 0 takes all that are not held out."""
    # airbench94 has 9.9 epochs, each without the last 848 images. Its learning rate is 11.5,
    # divided by 1 + 1 / (1 - momentum). Its weight decay is 0.0153 per step.
    steps: Count = 475
    """Training steps."""
    batch: Count = 1024
    """Images per step, over all devices."""
    lr: Positive = 1.5
    """Highest learning rate."""
    momentum: NotNegative = 0.85
    """Momentum of stochastic gradient descent."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: NotNegative = 0.0153 / 11.5
    """L2 weight decay, added to the gradient."""
    decay_steps: Natural = added(0)
    """Length of schedule and lookahead. 0 means --steps, which a resumed run cannot change."""
    flip: Literal["none", "random", "alternating"] = "alternating"
    """Mirror images at random, or each image in every other epoch, or not."""
    translate: Annotated[int, Range(0, 31)] = 2
    """Largest shift of training images along each axis, in pixels."""
    border: Border = "reflect"
    """Pixels that move in from outside: zeros, or the reflection of the image."""
    cutout: Natural = 0
    """Side of a square that is painted with the mean colour. 0 paints none."""
    smoothing: Rate = 0.2
    """Label smoothing: the share of each label that is spread equally over all classes."""
    bias_scale: Positive = 64.0
    """Factor of the learning rate of batch norm's offsets. Their weight decay is divided by it."""
    whitening_epochs: NotNegative = 3.0
    """Epochs in which the bias of the first layer trains. Then it is frozen."""
    lookahead: bool = True
    """Lookahead: average the net with a slow one every five steps."""
    views: bool = True
    """Average the predictions for six shifted and mirrored views of each image."""
    start: Start = Start()
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the computation. Parameters and batch norm are always float32."""
    predict: Path | None = None
    """Show the predictions of the run in this directory. Nothing trains."""
    random: Seeds = Seeds()
    run: RunFlags = RunFlags(log_every=25)


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json. Or predicts."""
    if config.predict is not None:
        test = image_arrays("cifar10", "test", data_dir=config.data_dir)
        return supervised.show(config.predict, load(config.predict), test)
    options: dict[str, Any] = {"label": "airnet", "check": check, "former": FORMER}
    return run_experiment("airbench", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    recipe.check_images(config.validation.validation, config.images)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Training, the scores on all three sets, and the pictures."""
    if not config.decay_steps:
        refuse_other_steps(run.directory, config.steps, "decay_steps")
    return recipe.evaluate_classifier(
        run,
        partial(train, config, run),
        evaluated(config),
        validation=config.validation.validation,
        images=config.images,
        data_dir=config.data_dir,
        about={"batch_norm": "running averages of training", "config": flat(config)},
    )


def net(config: Config, axis_name: str | None = None) -> StatefulModel:
    """The net, for normalised images `[n, 32, 32, 3]`."""
    return airnet(CLASSES, axis_name=axis_name, dtype=jnp.dtype(config.dtype))


def evaluated(config: Config) -> StatefulModel:
    """The net for evaluation, with `views` on several views of each image."""
    return with_views(net(config)) if config.views else net(config)


def optimiser(config: Config, images: int) -> optax.GradientTransformation:
    """Nesterov momentum with a triangular learning rate: up in 23 % of the steps, then down.

    The offsets of batch norm and the bias of the first layer have learning rates of their own.
    """
    end = config.decay_steps or config.steps
    corners = jnp.array([0.0, 0.23, 1.0]), jnp.array([0.2, 1.0, 0.07])

    def rate(step: Array) -> Array:
        return config.lr * jnp.interp(jnp.minimum(step / end, 1), *corners)

    def sgd(scale: float, rate: Callable[[Array], Array]) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay / scale),
            optax.trace(config.momentum, nesterov=config.nesterov),
            optax.scale_by_learning_rate(lambda step: scale * rate(step)),
        )

    def group(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path)
        return "whitening" if "whitening" in name else "offset" if "norm" in name else "weight"

    early = config.whitening_epochs * images / config.batch
    groups = {
        "weight": sgd(1.0, rate),
        "offset": sgd(config.bias_scale, rate),
        "whitening": sgd(1.0, lambda step: rate(step) * (step < early)),
    }
    return optax.partition(groups, lambda params: jax.tree.map_with_path(group, params))


def initial(config: Config, images: np.ndarray) -> tuple[TrainState, optax.GradientTransformation]:
    """The state before the first step, `[seeds]`, and its optimiser."""
    tx, x = optimiser(config, len(images)), recipe.image_like(WHITENED, images)
    keys = run_keys(config.random.seed, config.random.seeds)
    state = init_states(lambda key: net(config).init(key, x), keys, tx, with_stats=True)
    state = started(state, config.start.init_from, config.start.init_except)
    return with_slow(state) if config.lookahead else state, tx


def train(
    config: Config, run: Run, data: ImageData, validate: recipe.Validate | None
) -> TrainState:
    """The last state of all seeds, on one device."""
    devices, axis = recipe.devices_of(run)
    state, tx = initial(config, data.images)
    step = training_step(config, tx, axis)
    options: dict[str, Any] = {"validate": validate, "devices": devices}
    return recipe.train_classifier(run, step, data, state, flat(config), **options)


def training_step(
    config: Config, tx: optax.GradientTransformation, axis_name: str | None = None
) -> StepFn:
    """One step on a batch, shared among the devices of the axis."""
    loss = partial(cross_entropy, smoothing=config.smoothing)
    step = supervised_step(net(config, axis_name), loss, tx, axis_name=axis_name)
    if not config.lookahead:
        return step
    end = config.decay_steps or config.steps
    keep = lambda i: 0.95**5 * jnp.minimum(i / end, 1) ** 3  # noqa: E731
    return lookahead(step, every=5, keep=keep, steps=end)


def load(directory: Path | str) -> supervised.Predictor:
    """The net of a run: images uint8 `[n, 32, 32, 3]` to logits `[n, 10]` (of the first seed).

    Raises:
        InputError: if there is no run, or if it has no checkpoint.
        RunError: if the checkpoint is damaged.
    """
    config = load_config(Path(directory), Config, FORMER)
    like, _ = initial(config, np.zeros((1, 32, 32, 3), np.uint8))
    return supervised.predictor(evaluated(config), as_seen, load_last(directory, like))


if __name__ == "__main__":
    cli.command_line(main, Config)
