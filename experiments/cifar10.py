"""CIFAR-10 by LeNet and by ResNet-18.

`lenet` is a tutorial's recipe for a CPU. Its learning rate falls so early that it underfits, on
training images as on test images. `resnet18` is the standard recipe for 95 % and more. It needs a
GPU, and its accuracy is not yet measured here. Scores are those of the last parameters. By default,
5,000 training images are held out for validation.

Command: scripts/run cifar10 [--preset resnet18]; --predict DIRECTORY shows what a run has learnt
Runtime: 3 seeds of lenet 10 minutes on one of two busy CPU cores; resnet18 needs a GPU
Result: lenet, 3 seeds: 54.12 ± 0.57 % of the 10,000 test images
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.cifar10 import report
from jaxdl.data.augment import Border
from jaxdl.data.sets.images import ImageData, image_arrays
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.resnet import Stem, resnet18
from jaxdl.models.torch_weights import load_torch_weights, read_tensors
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
from jaxdl.runs.weights import holds_weights, started
from jaxdl.train.steps import init_states, supervised_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Params, PyTree, StatefulModel, TrainState

FORMER = Former(
    "cifar10",
    {"bias_scale": 1.0, "whitening_epochs": 3.0, "lookahead": False, "views": False},
)
"""Fields of `airbench` that were part of the configuration before."""
MOVED = dict.fromkeys(
    (
        *("--net airnet", "--preset fast", "--schedule triangle", "--flip alternating"),
        *("--bias-scale", "--whitening-epochs", "--lookahead", "--views"),
    ),
    "airbench",
)


@dataclasses.dataclass(frozen=True)
class Config:
    net: Literal["lenet", "resnet18"] = "lenet"
    """Net: 62 thousand or 11 million parameters."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    validation: Validation = Validation(eval_every=700)
    """--validation 0 holds out none and trains on all training images."""
    images: Natural = 0
    """Training images to use, the first ones. 0 takes all that are not held out."""
    steps: Count = 14_063
    """Training steps."""
    batch: Count = 64
    """Images per step, over all devices."""
    lr: Positive = 0.001
    """Highest learning rate."""
    momentum: NotNegative = 0.9
    """Momentum of stochastic gradient descent."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: NotNegative = 0.0
    """L2 weight decay, added to the gradient."""
    schedule: Literal["staircase", "cosine"] = "staircase"
    """Schedule of the learning rate: times 0.1 every --decay-epochs, or half a cosine to 0."""
    decay_steps: Natural = added(0)
    """Steps of the cosine. 0 means --steps, which a resumed run then cannot change."""
    decay_epochs: Positive = 7.0
    """Epochs between two falls of the staircase."""
    flip: Literal["none", "random"] = "none"
    """Mirror images at random, or not."""
    translate: Annotated[int, Range(0, 31)] = 0
    """Largest shift of training images along each axis, in pixels."""
    border: Border = "zeros"
    """Pixels that move in from outside: zeros, or the reflection of the image."""
    cutout: Natural = 0
    """Side of a square that is painted with the mean colour. 0 paints none."""
    smoothing: Rate = 0.0
    """Label smoothing: the share of each label that is spread equally over all classes."""
    dropout: Rate = 0.0
    """Dropout rate of lenet, after both hidden dense layers."""
    stem: Stem = "cifar"
    """First layer of resnet18: a 3x3 convolution, or a 7x7 one as in torchvision's weights."""
    start: Start = Start()
    """Resnet18 also takes weights of PyTorch: a .safetensors or .npz in torchvision's layout."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation. Parameters and batch norm are always float32."""
    predict: Path | None = None
    """Show the predictions of the run in this directory. Nothing trains."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


PRESETS = {
    "lenet": Config(),
    # 200 epochs of 50,000 images.
    "resnet18": Config(
        net="resnet18",
        validation=Validation(0, eval_every=2000),
        steps=78_125,
        batch=128,
        lr=0.1,
        nesterov=True,
        weight_decay=5e-4,
        schedule="cosine",
        flip="random",
        translate=4,
        dtype="bfloat16",
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json. Or predicts."""
    if config.predict is not None:
        test = image_arrays("cifar10", "test", data_dir=config.data_dir)
        return supervised.show(config.predict, load(config.predict), test)
    options: dict[str, Any] = {"label": config.net, "check": check, "former": FORMER}
    return run_experiment("cifar10", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    recipe.check_images(config.validation.validation, config.images)
    if config.decay_steps and config.schedule == "staircase":
        raise InputError("`decay_steps=` is for `schedule=cosine`: leave it out")
    if config.dropout and config.net != "lenet":
        raise InputError(f"{config.net} has no dropout: leave `dropout=` out")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Training, the scores on all three sets, and the pictures."""
    if config.schedule == "cosine" and not config.decay_steps:
        refuse_other_steps(run.directory, config.steps, "decay_steps")
    return recipe.evaluate_classifier(
        run,
        partial(train, config, run),
        net(config),
        validation=config.validation.validation,
        images=config.images,
        data_dir=config.data_dir,
        about={
            "batch_norm": "none" if config.net == "lenet" else "running averages of training",
            "config": flat(config),
        },
    )


def net(config: Config, axis_name: str | None = None) -> StatefulModel:
    """The net of a configuration, for normalised images `[n, 32, 32, 3]`."""
    dtype = jnp.dtype(config.dtype)
    if config.net == "lenet":
        return without_stats(lenet(CLASSES, dropout=config.dropout, dtype=dtype))
    return resnet18(CLASSES, stem=config.stem, axis_name=axis_name, dtype=dtype)


def optimiser(config: Config, images: int) -> optax.GradientTransformation:
    """Stochastic gradient descent on a schedule."""
    stair, end = config.decay_epochs * images / config.batch, config.decay_steps or config.steps

    def rate(step: Array) -> Array:
        if config.schedule == "cosine":
            return config.lr * (1 + jnp.cos(jnp.pi * jnp.minimum(step / end, 1))) / 2
        return config.lr * 0.1 ** jnp.floor(step / stair)

    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(config.momentum, nesterov=config.nesterov),
        optax.scale_by_learning_rate(rate),
    )


def initial(config: Config, images: np.ndarray) -> tuple[TrainState, optax.GradientTransformation]:
    """The state before the first step, `[seeds]`, and its optimiser."""
    tx, x, path = optimiser(config, len(images)), recipe.image_like(1, images), torch_file(config)

    def init(key: Key) -> tuple[Params, PyTree]:
        params, stats = net(config).init(key, x)
        return (params, stats) if path is None else load_torch_weights(path, params, stats)[:2]

    keys = run_keys(config.random.seed, config.random.seeds)
    state = init_states(init, keys, tx, with_stats=True)
    if path is None:
        state = started(state, config.start.init_from, config.start.init_except)
    return state, tx


def torch_file(config: Config) -> Path | None:
    """The file of weights to start from, if its layout is PyTorch's."""
    path = config.start.init_from
    if config.net != "resnet18" or path is None or not path.is_file():
        return None
    return None if holds_weights(read_tensors(path)) else path


def train(
    config: Config, run: Run, data: ImageData, validate: recipe.Validate | None
) -> TrainState:
    """The last state of all seeds, on one device."""
    devices, axis = recipe.devices_of(run)
    state, tx = initial(config, data.images)
    loss = partial(cross_entropy, smoothing=config.smoothing)
    step = supervised_step(net(config, axis), loss, tx, axis_name=axis)
    options: dict[str, Any] = {"validate": validate, "devices": devices}
    return recipe.train_classifier(run, step, data, state, flat(config), **options)


def load(directory: Path | str) -> supervised.Predictor:
    """The net of a run: images uint8 `[n, 32, 32, 3]` to logits `[n, 10]` (of the first seed).

    Raises:
        InputError: if there is no run, or if it has no checkpoint.
        RunError: if the checkpoint is damaged.
    """
    config = load_config(Path(directory), Config, FORMER)
    like, _ = initial(config, np.zeros((1, 32, 32, 3), np.uint8))
    return supervised.predictor(net(config), as_seen, load_last(directory, like))


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS, moved=MOVED)
