"""The common part of experiments on CIFAR-10: data, augmentation, training and evaluation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import parallel
from jaxdl.data.augment import Border, alternating_flip, cutout, flip, normalise, translate
from jaxdl.data.epochs import Visit, epochs
from jaxdl.data.sets.images import STATISTICS, ImageData, image_splits, rows
from jaxdl.losses import cross_entropy
from jaxdl.recipes import supervised
from jaxdl.runs.config import Range
from jaxdl.runs.run import Run, say
from jaxdl.train.evaluation import measure
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Metrics, StatefulModel, StepFn, TrainState

CLASSES, IMAGES = 10, 50_000
MEAN, STD = (np.array(each, np.float32) for each in STATISTICS["cifar10"])
EVALUATED = 10_000
"""Number of training images, the first ones, for the training accuracy at the end."""

Flip = Literal["none", "random", "alternating"]
Validate = Callable[[TrainState], Metrics]
Train = Callable[[ImageData, Validate | None], TrainState]
"""`(training images, validation) -> last state [seeds]`."""


def check_images(validation: int, images: int) -> None:
    """Validates the numbers of training and validation images.

    Raises:
        InputError: if there are fewer images. The message names the field and its limit.
    """
    Range(0, IMAGES - 1).refuse("validation", validation)
    Range(0, IMAGES - validation).refuse("images", images)


def as_seen(image: Array) -> Array:
    """The input of a net from a uint8 image."""
    return normalise(image, MEAN, STD)


def augmentation(
    *, flip_by: Flip, pixels: int, border: Border, hole: int
) -> Callable[[Key, Array, Visit], Array]:
    """A transform from a stored image to the net's input in training.

    Args:
        flip_by: mirror images at random, or each image in every other epoch, or not.
        pixels: largest shift along each axis. `border` gives the pixels that move in.
        hole: side of a square that is painted with the mean colour. 0 paints none.
    """

    def transform(key: Key, image: Array, visit: Visit) -> Array:
        flip_key, move_key, cut_key = jax.random.split(key, 3)
        if flip_by == "random":
            image = flip(flip_key, image)
        elif flip_by == "alternating":
            image = alternating_flip(visit, image)
        if pixels:
            image = translate(move_key, image, pixels=pixels, border=border)
        image = as_seen(image)
        return cutout(cut_key, image, size=hole) if hole else image

    return transform


def train_classifier(
    run: Run,
    step: StepFn,
    data: ImageData,
    state: TrainState,
    config: Mapping[str, Any],
    *,
    validate: Validate | None,
    devices: int,
) -> TrainState:
    """The last state of all seeds, on one device.

    Args:
        config: these fields of a configuration: `flip`, `translate`, `border` and `cutout` for the
            augmentation; `batch`, `eval_every`, `seed` and `seeds`.
    """
    transform = augmentation(
        flip_by=config["flip"],
        pixels=config["translate"],
        border=config["border"],
        hole=config["cutout"],
    )
    batch: int = config["batch"]
    options: dict[str, Any] = {"batch": batch, "visits": True, "classes": CLASSES}
    return run.train(
        step,
        epochs(*data[:2], transform=transform, **options),
        run_keys(config["seed"], config["seeds"]),
        run.restore(state),
        validate=validate,
        eval_every=config["eval_every"],
        devices=devices,
    )


def evaluate_classifier(
    run: Run,
    train: Train,
    model: StatefulModel,
    *,
    validation: int,
    images: int,
    data_dir: Path | None,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Trains, evaluates on all three sets, and draws. Returns the content of result.json.

    Args:
        train: the training, see `Train`.
        model: the net in its form for evaluation.
        validation: number of training images to hold out.
        images: number of the other images to train on. 0 takes all.
        about: more entries of the result.
    """
    data = image_splits("cifar10", validation=validation, data_dir=data_dir)
    train_data = rows(data["train"], slice(images or None))
    evaluate = measure(model, cross_entropy, as_seen, devices=devices_of(run)[0])
    state = train(train_data, supervised.validation(evaluate, data["validation"]))
    say("testing ...")
    data["train"] = rows(train_data, slice(EVALUATED))
    result = supervised.scores(evaluate, state, data)
    logits = supervised.predictor(model, as_seen, state)(data["test"].images)
    supervised.draw(run, data["test"], logits, result["test"])
    split = supervised.split_of("CIFAR-10", validation)
    return run.finish({**result, "train_images": len(train_data.labels), "split": split, **about})


def image_like(count: int, images: Any) -> Array:
    """The first images as inputs of a net, for the initialisation of its parameters."""
    return as_seen(jnp.asarray(images[:count]))


def devices_of(run: Run) -> tuple[int, str | None]:
    """The number of devices that share a step, and the name of their axis."""
    devices = parallel.count_devices(run.flags.devices)
    return devices, parallel.axis_name(devices)
