"""The tasks of a run of few_shot on images: its data, by class split, as samplers of episodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.data.duplicates import cross_split_duplicates, drop_duplicates
from jaxdl.data.episodes import few_shot
from jaxdl.data.examples import examples
from jaxdl.data.sets import splits
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.data.sets.images import OMNIGLOT_SEED, TWINS, ImageData, Split, few_shot_arrays
from jaxdl.data.sets.two_digits import numbers_few_shot
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.recipes.own_data import OWN, pictures_of
from jaxdl.types import LossFn, PyTree, Sampler


class Tasks(NamedTuple):
    """What a run trains on, chooses by and is tested on.

    `train`, `validation` and `test` draw an episode, of disjoint classes or tasks.
    `labelled` draws a labelled example of the `classes` training classes; None for a regression.
    `ways` and `test_ways`: outputs of a learner of training and of test tasks.
    `train_x` and `test_x`: two inputs of training and of test tasks.
    `split` and `notes` stand beside the numbers. `scaling`: how a table was standardised.
    `metric`: which metric of `loss` is reported; of "loss" the lowest is the best.
    """

    train: Sampler
    validation: Sampler
    test: Sampler
    labelled: Sampler | None
    classes: int
    ways: int
    test_ways: int
    train_x: PyTree
    test_x: PyTree
    split: str
    notes: tuple[str, ...]
    scaling: dict[str, Any] | None = None
    loss: LossFn = cross_entropy
    metric: str = "accuracy"


def image_tasks(config: Mapping[str, Any]) -> Tasks:
    """The tasks of a run of few_shot on images, by the fields of its configuration.

    Raises:
        InputError: if the data are not prepared, or give no such tasks.
    """
    data, notes = _splits(config)
    draw = {
        name: few_shot_of_split(
            config,
            name,
            of.images,
            # Names, so that a warning can tell them; labels, as runs of before had them.
            np.array(of.class_names)[of.labels] if config["data"] in OWN else of.labels,
            rotations=config["rotations"],
        )
        for name, of in data.items()
    }
    key, train = jax.random.key(0), data["train"]
    # Only here: a run of before that is loaded may have the field, which changed nothing.
    if config["head"] != "xavier" and train.images.shape[-1] == 3:
        raise InputError(
            f"`head={config['head']}` is for images in one colour, and these have three. Leave it"
            " out"
        )
    return Tasks(
        train=draw["train"],
        validation=draw["validation"],
        test=draw["test"],
        labelled=examples(train.images, train.labels),
        classes=len(train.class_names),
        ways=config["ways"],
        test_ways=config.get("test_ways") or config["ways"],
        train_x=draw["train"](key).support.x[:2],
        test_x=draw["test"](key).support.x[:2],
        split=f"test: {len(data['test'].class_names)} classes that training never saw",
        notes=notes,
    )


def few_shot_of_split(
    config: Mapping[str, Any], split: Split, x: np.ndarray, labels: np.ndarray, **options: Any
) -> Sampler:
    """The sampler of training tasks, or of validation or test tasks.

    Raises:
        InputError: as `few_shot`, with the name of the split.
    """
    counts, classes = counts_of(config, test=split != "train"), len(set(labels.tolist()))
    if (ways := counts["ways"]) > classes and config["data"] in OWN:
        other = f", or `test_ways={classes}` with a learner such as protonet" * (split != "train")
        raise InputError(
            f"the {split} split has {classes} of your classes, but a task takes {ways}. Give"
            f" `ways={classes}`{other}, or a split of your own by `class_lists=`"
        )
    try:
        return few_shot(x, labels, **options, **counts)
    except InputError as error:
        names, sizes = np.unique(labels, return_counts=True)
        small = [str(name) for name in names[sizes <= counts["shots"]]]
        ways_out = ", or another `split_seed=` or `class_lists=`" * (config["data"] in OWN)
        told = f" (with too few: {', '.join(small[:5])})" * bool(small)
        raise InputError(f"{split} tasks{told}: {error}{ways_out}") from error


def counts_of(config: Mapping[str, Any], *, test: bool) -> dict[str, Any]:
    """Ways, shots and queries of training tasks, or of validation and test tasks."""
    if not test:
        return {name: config[name] for name in ("ways", "shots", "queries")}
    found = {name: config.get(f"test_{name}") or config[name] for name in ("ways", "shots")}
    return {**found, "queries": config["test_queries"]}


def _splits(config: Mapping[str, Any]) -> tuple[dict[Split, ImageData], tuple[str, ...]]:
    """The images of the three splits, and what to say of them."""
    other = config.get("test_data")
    if {config["data"], other} == {"cifar_fs", "fc100"}:
        raise InputError(
            f"`data={config['data']}` trains on classes of CIFAR-100 that `test_data={other}`"
            " tests, because the two divide its classes otherwise. Choose other test data"
        )
    options = omniglot_options(config) | {"data_dir": config["data_dir"]}
    if config["data"] in OWN:
        data = pictures_of(config)
    else:
        data = {split: load_images(config["data"], split, **options) for split in splits.NAMES}
    if other:
        data = {**data, "test": load_images(other, "test", **options)}
    notes = data["test"].notes
    if config["data"] in OWN and not other:
        pairs = sum(map(len, cross_split_duplicates(_images(data)).values()))
        if pairs and not config["drop_duplicates"]:
            notes = (*notes, f"{pairs} pairs of equal images lie in two splits; they are kept.")
    if config.get("drop_duplicates"):
        return _without_twins(data, tuple(note for note in notes if note not in TWINS.values()))
    return data, notes


def omniglot_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """How Omniglot is divided and resized: arguments of `few_shot_arrays`.

    Raises:
        InputError: if one of them is changed and the data are others.
    """
    defaults = {"split": "maml", "omniglot_seed": OMNIGLOT_SEED, "omniglot_resize": "area"}
    found = {}
    for name, default in defaults.items():
        found[name] = config.get(name, default)  # runs of before have no such field
        if found[name] != default and "omniglot" not in (config["data"], config.get("test_data")):
            raise InputError(
                f"`{name}={found[name]}` is for Omniglot, and the data are {config['data']}. Leave"
                " it out, or choose `data=omniglot`"
            )
    return {"omniglot_split": found.pop("split"), **found}


def _without_twins(
    data: dict[Split, ImageData], notes: tuple[str, ...]
) -> tuple[dict[Split, ImageData], tuple[str, ...]]:
    """The images that no later split has, too."""
    arrays: dict[str, tuple[np.ndarray, ...]] = {
        name: (of.images, of.labels) for name, of in data.items()
    }
    kept = drop_duplicates(arrays)
    found = {
        name: of._replace(images=kept[name][0], labels=kept[name][1]) for name, of in data.items()
    }
    gone = {name: len(of.labels) - len(found[name].labels) for name, of in data.items()}
    parts = " and ".join(f"{gone[name]} of {name}" for name in ("train", "validation"))
    return found, (*notes, f"Images dropped because a later split has them, too: {parts}.")


def _images(data: Mapping[Split, ImageData]) -> dict[str, np.ndarray]:
    return {name: of.images for name, of in data.items()}


def load_images(
    name: str,
    split: Split,
    *,
    data_dir: Path | str | None = None,
    **omniglot: Any,
) -> ImageData:
    """The images of one split of a data set of `IMAGE_SHAPES`.

    Args:
        omniglot: arguments of `few_shot_arrays` that are for Omniglot alone.

    Raises:
        InputError: if they are not prepared.
    """
    if name in ("numbers", "digits"):
        make = numbers_few_shot if name == "numbers" else digits_few_shot
        images, labels, names = make(split)
        return ImageData(images, labels, tuple(names), np.zeros(1), np.ones(1))
    data: Any = name
    return few_shot_arrays(data, split, data_dir=data_dir, **omniglot)
