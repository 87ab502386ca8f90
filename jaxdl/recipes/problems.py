"""The problems of experiments with few labels: a target, and a source to train on before."""

from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxdl.data.labels import check_labels
from jaxdl.data.sets.digits import enlarged_drawings
from jaxdl.data.sets.images import few_shot_arrays, image_arrays
from jaxdl.data.subsets import divided
from jaxdl.recipes.few_labels import Images, Problem, problem_of

Data = Literal["mnist", "omniglot", "cifar10", "digits"]
_PUBLISHED = "{}the published test images; 200 training images of each class are held out"
ALONE: dict[Data, str] = {
    "mnist": _PUBLISHED.format(""),
    "cifar10": _PUBLISHED.format(""),
    "omniglot": "a quarter of the test characters of MAML's split: of each, 15 drawings to learn"
    " from, 2 for choices, 3 for the test",
    "digits": "classes 0 to 4: of each, 100 images to learn from, 30 for choices, the rest for the"
    " test",
}
"""The split of the target of `alone` and `other_source`."""
OTHER = {
    "mnist": _PUBLISHED.format("classes 5 to 9: "),
    "omniglot": "a sixth of the characters of the test alphabets: of each, 15 drawings to learn"
    " from, 2 for choices, 3 for the test",
    "cifar100": "the test classes of FC100: of each, 400 images to learn from, 50 for choices, 150"
    " for the test",
    "digits": "classes 5 to 9: of each, 100 images to learn from, 30 for choices, the rest for the"
    " test",
}
"""The split of the target of `other_classes`."""


def alone(data: Data, data_dir: Path | None) -> Problem:
    """The classes of a data set as target, and the same classes as source.

    MNIST and CIFAR-10 have all their classes. Omniglot has a quarter of its test characters. The
    digits of scikit-learn have the classes 0 to 4.

    Raises:
        InputError: if the data are not prepared.
    """
    if data == "digits":
        images, digits = enlarged_drawings()
        own = images[digits < 5], digits[digits < 5]
        return problem_of(*own, own, (100, 30))
    if data == "omniglot":
        test = few_shot_arrays("omniglot", "test", data_dir=data_dir)
        # Every fourth character, because MAML can still train a net with a logit for each.
        chosen = test.labels % 4 == 0
        own = test.images[chosen], test.labels[chosen] // 4
        return problem_of(*own, own, (15, 2))
    train, test = (image_arrays(data, part, data_dir=data_dir) for part in ("train", "test"))
    problem = problem_of(train.images, train.labels, train[:2], (-200, 200))
    return problem._replace(test=(jnp.asarray(test.images), jnp.asarray(test.labels)))


def other_source(data: Data, data_dir: Path | None) -> Problem:
    """The problem of `alone`, with other images as source.

    The source of MNIST is Omniglot, that of CIFAR-10 is CIFAR-100. Omniglot's test characters have
    its training characters as source, and the digits 0 to 4 of scikit-learn have 5 to 9.

    Raises:
        InputError: if the data are not prepared.
    """
    if data == "digits":
        images, digits = enlarged_drawings()
        source = images[digits >= 5], digits[digits >= 5] - 5
    elif data == "cifar10":
        source = image_arrays("cifar100", "train", data_dir=data_dir)[:2]
    else:
        source = few_shot_arrays("omniglot", "train", data_dir=data_dir)[:2]
    labels = check_labels(source[1], len(source[0]))
    return alone(data, data_dir)._replace(source=(source[0], labels))


def other_classes(
    data: Literal["mnist", "omniglot", "cifar100", "digits"], data_dir: Path | None
) -> tuple[Problem, Images]:
    """Some classes of a data set as target, and other classes of it as source.

    Returns:
        The problem, and held-out images of the source's classes.

    Raises:
        InputError: if the data are not prepared.
    """
    if data == "mnist":
        train, test = (image_arrays(data, part, data_dir=data_dir) for part in ("train", "test"))
        source, source_test = (_below_five(*part[:2]) for part in (train, test))
        late = train.labels >= 5
        problem = problem_of(train.images[late], train.labels[late] - 5, source, (-200, 200))
        late = test.labels >= 5
        held_out = jnp.asarray(test.images[late]), jnp.asarray(test.labels[late] - 5)
        return problem._replace(test=held_out), source_test
    if data == "digits":
        images, digits = enlarged_drawings()
        source, source_test = _held_out(*_below_five(images, digits), 30)
        late = digits >= 5
        return problem_of(images[late], digits[late] - 5, source, (100, 30)), source_test
    omniglot = data == "omniglot"
    name: Literal["omniglot", "fc100"] = "omniglot" if omniglot else "fc100"
    options: dict[str, Any] = {"omniglot_split": "alphabets", "data_dir": data_dir}
    train = few_shot_arrays(name, "train", **options)
    source, source_test = _held_out(*train[:2], 2 if omniglot else 60)
    images, labels = few_shot_arrays(name, "test", **options)[:2]
    if omniglot:
        # Every sixth character, because MAML can still train a net with a logit for each.
        images, labels = images[labels % 6 == 0], labels[labels % 6 == 0] // 6
    return problem_of(images, labels, source, (15, 2) if omniglot else (400, 50)), source_test


def _below_five(images: np.ndarray, digits: np.ndarray) -> Images:
    return images[digits < 5], digits[digits < 5]


def _held_out(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[Images, Images]:
    """All images but the last `count` per class, and these last ones."""
    first, last, _ = divided(labels, -count, count)
    return (images[first], labels[first]), (images[last], labels[last])
