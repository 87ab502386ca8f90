"""The tasks of a run of few_shot: its data, by class split, as samplers of episodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.data.episodes import few_shot
from jaxdl.data.examples import examples
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.data.sets.images import ImageData, Split, few_shot_arrays
from jaxdl.data.sets.two_digits import numbers_few_shot
from jaxdl.types import PyTree, Sampler


class Tasks(NamedTuple):
    """What a run trains on, chooses by and is tested on.

    `train`, `validation` and `test` draw an episode, of disjoint classes.
    `labelled` draws a labelled example of the training classes, of which there are `classes`.
    `train_x` and `test_x`: two inputs of training and of test tasks.
    `split` and `notes` stand beside the numbers.
    """

    train: Sampler
    validation: Sampler
    test: Sampler
    labelled: Sampler
    classes: int
    train_x: PyTree
    test_x: PyTree
    split: str
    notes: tuple[str, ...]


def tasks_of(config: Mapping[str, Any]) -> Tasks:
    """The tasks of a run of few_shot, by the fields of its configuration.

    Raises:
        InputError: if the data are not prepared, or give no such tasks.
    """
    options = {"omniglot_split": config["split"], "data_dir": config["data_dir"]}
    train, validation = (load_images(config["data"], of, **options) for of in _CHOOSE)
    test = load_images(config.get("test_data") or config["data"], "test", **options)
    counts = {name: config[name] for name in ("ways", "shots", "queries")}
    tested = {
        "ways": config.get("test_ways") or config["ways"],
        "shots": config.get("test_shots") or config["shots"],
        "queries": config["test_queries"],
    }
    draw = [
        few_shot(data.images, data.labels, rotations=config["rotations"], **numbers)
        for data, numbers in ((train, counts), (validation, tested), (test, tested))
    ]
    key = jax.random.key(0)
    return Tasks(
        train=draw[0],
        validation=draw[1],
        test=draw[2],
        labelled=examples(train.images, train.labels),
        classes=len(train.class_names),
        train_x=draw[0](key).support.x[:2],
        test_x=draw[2](key).support.x[:2],
        split=f"test: {len(test.class_names)} classes that training never saw",
        notes=tuple(test.notes),
    )


_CHOOSE: tuple[Split, ...] = ("train", "validation")


def load_images(
    name: str,
    split: Split,
    *,
    omniglot_split: str = "maml",
    data_dir: Path | str | None = None,
) -> ImageData:
    """The images of one split of a data set of `IMAGE_SHAPES`.

    Raises:
        InputError: if they are not prepared.
    """
    if name in ("numbers", "digits"):
        make = numbers_few_shot if name == "numbers" else digits_few_shot
        images, labels, names = make(split)
        return ImageData(images, labels, tuple(names), np.zeros(1), np.ones(1))
    data: Any = name
    options: dict[str, Any] = {"omniglot_split": omniglot_split, "data_dir": data_dir}
    return few_shot_arrays(data, split, **options)
