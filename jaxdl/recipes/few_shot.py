"""The nets and learners of the few-shot experiments.

The nets are those of MAML (https://arxiv.org/abs/1703.03400): conv-4 on the images of section 5.2,
and the dense net on the sine waves of section 5.1.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import optax

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.base import QueryGrad
from jaxdl.meta.nearest_centroid import nearest_centroid
from jaxdl.meta.raw_logistic import raw_logistic
from jaxdl.meta.support_mean import support_mean
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.conv4 import MAML_HEAD, XAVIER_HEAD, conv4_omniglot, conv4_pooled
from jaxdl.models.layers.norm import Mode
from jaxdl.models.mlp import INITIALISERS, maml_kernel_init, mlp
from jaxdl.recipes.choice import (
    Choice,
    build,
    build_for_curves,
    find,
    from_arguments,
    own_hints,
    refuse_other_parameters,
    with_learner,
)
from jaxdl.recipes.labelled_learners import finetune
from jaxdl.recipes.learners import LEARNERS, REGRESSORS, AnyLearner, Make
from jaxdl.recipes.meta_training import meta_train, one_on_cpu
from jaxdl.recipes.own_data import asks_for_numbers, predicts_numbers
from jaxdl.recipes.rates import best_rate
from jaxdl.recipes.table_tasks import table_tasks
from jaxdl.recipes.tasks import Tasks, image_tasks
from jaxdl.runs.config import flat
from jaxdl.runs.run import Run
from jaxdl.types import Array, Key, LossFn, MetaLearner, Model, Params, TransferLearner

Config = TypeVar("Config")

IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "numbers": (8, 16, 1),
    "digits": (8, 8, 1),
    "omniglot": (28, 28, 1),
    "cifar_fs": (32, 32, 3),
    "fc100": (32, 32, 3),
}
"""The images of each data set that comes prepared."""
BATCH_NORM: dict[str, str] = {
    "batch": "statistics of the batch at hand, at test too (transductive, as MAML)",
    "support": "statistics of the support set, kept for queries (inductive)",
    "example": "statistics of each example (inductive)",
}
HEADS: dict[str, Any] = {"xavier": XAVIER_HEAD, "normal": MAML_HEAD}
SINE_INITS: dict[str, Any] = {"lecun": INITIALISERS["lecun"], "code": maml_kernel_init}

TABLE_RATE = 0.05
"""The inner learning rate for tables whose target is a number, in standard units."""
TABLE_RATES = {"imaml": 0.002}
"""Where it is another: momentum makes the steps of iMAML five times as long, and it takes 32."""
FINE_TUNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def net(
    shape: tuple[int, ...], ways: int | None, *, filters: int, norm: str, head: str = "xavier"
) -> Model:
    """conv-4 in the form that the paper uses for images `[height, width, channels]`.

    That is with pooling for colours, and with strides for other images.

    Args:
        ways: logits per image; None: features.
        norm: one of `BATCH_NORM`.
        head: one of `HEADS`, for images that are not in colour.
    """
    mode: Mode = "example" if norm == "example" else "batch"
    if shape[-1] == 3:
        return conv4_pooled(ways, filters, mode)
    return conv4_omniglot(ways, filters, mode, head_init=HEADS[head])


def learner_of_images(
    config: Mapping[str, Any],
    classes: int | None = None,
    *,
    ways: int | None = None,
    make: Make | None = None,
    loss: LossFn = cross_entropy,
) -> AnyLearner:
    """The learner of a run of few_shot, by the fields of its configuration.

    Args:
        classes: number of training classes, which a `TransferLearner` needs.
        ways: classes per task; by default those of training.
        make: by default the function that the field `learner` names.
        loss: the inner and the outer loss.
    """
    make = make or find(config.get("learner", "maml")).make
    own = {name: config[name] for name in own_hints(make)}
    return _of_images(make, config, classes, loss, ways=ways or config["ways"], own=own)


def fine_tuning_of_images(
    config: Mapping[str, Any], tasks: Tasks, lr: float | Array
) -> TransferLearner:
    """The baseline: the net classifies all training classes; in a task a new head and all else
    learn.

    Args:
        lr: of the steps in a task.
    """
    options: dict[str, Any] = {"ways": tasks.test_ways, "own": {"inner_lr": lr}}
    made = _of_images(finetune, config, tasks.classes, tasks.loss, **options)
    assert isinstance(made, TransferLearner)
    return made


def _of_images(
    make: Make, config: Mapping[str, Any], classes: int | None, loss: LossFn, **options: Any
) -> AnyLearner:
    learner = build(make, net_of(config), loss, classes=classes, **options)
    if config["norm"] != "support" or config["data"] == "table":
        return learner
    # A gradient of the learner's own, such as Reptile's, must not become that of the query loss.
    if isinstance(learner, TransferLearner):
        return by_support_statistics(learner)
    if not isinstance(learner.grad, QueryGrad):
        return by_support_statistics(learner)
    # RelationNet trains by another loss than it is tested by.
    return by_support_statistics(learner, learner.grad.loss or loss)


def image_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the images of a run of few_shot, by the fields of its configuration."""
    if config["data"] in ("folder", "mini_imagenet"):
        return (config["size"], config["size"], 1 if config["grey"] else 3)
    return IMAGE_SHAPES[config["data"]]


def tasks_of(config: Mapping[str, Any]) -> Tasks:
    """The tasks of a run of few_shot, by the fields of its configuration.

    What `few_shot` warns of, such as classes that are too small, is among the notes.

    Raises:
        InputError: as `image_tasks` and `table_tasks`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        tasks = table_tasks(config) if config["data"] == "table" else image_tasks(config)
    told = dict.fromkeys(f"{warning.message}." for warning in caught)  # each once
    return tasks._replace(notes=(*tasks.notes, *told))


def learners_for(config: Mapping[str, Any]) -> Mapping[str, Make]:
    """The learners that suit the data of a run: of classes, or of numbers."""
    return REGRESSORS if predicts_numbers(config) else LEARNERS


def complete(default: Config, arguments: Sequence[str]) -> Config:
    """The defaults with the flags of the learner that the arguments of a command line name.

    For a regression the learners are those of numbers, with `TABLE_RATE` or
    that of `TABLE_RATES` as the inner rate.
    """
    if not asks_for_numbers(arguments):
        return from_arguments(default, arguments)
    made = from_arguments(default, arguments, REGRESSORS)
    if "inner_lr" not in flat(made):
        return made
    name: str = made.learner  # type: ignore[attr-defined]
    return with_learner(made, name, REGRESSORS, inner_lr=TABLE_RATES.get(name, TABLE_RATE))


def net_of(config: Mapping[str, Any]) -> Callable[[int | None], Model]:
    """The net of a run with so many outputs, or features: conv-4, for a table a dense net."""
    if config["data"] == "table":
        hidden = tuple(config["hidden"])
        return lambda outputs: mlp(hidden if outputs is None else (*hidden, outputs))
    shape = image_shape(config)
    options = {name: config[name] for name in ("filters", "norm", "head")}
    return partial(net, shape, **options)


def fine_tuning_baseline(
    run: Run,
    fine_tuning: Callable[[Any], TransferLearner],
    tasks: Tasks,
    *,
    lr: float,
    batch: int,
    keys: Key,
    key: Key,
) -> tuple[TransferLearner, Params, float]:
    """Pretraining by Adam, and the learning rate in a task that is best on 200 validation tasks.

    Args:
        fine_tuning: the learner that adapts with a learning rate.
        batch: examples per step.
        keys: run keys `[seeds]`.
        key: of the validation tasks.

    Returns:
        The learner with that rate, its parameters `[seeds]`, and the rate.
    """
    tx = optax.adam(lr)
    options: dict[str, Any] = {
        "tx": tx,
        "keys": keys,
        "x": tasks.train_x,
        "tasks": batch,
        "chunk": None,
    }
    assert tasks.labelled is not None
    params = meta_train(run, fine_tuning(0.0), tasks.labelled, **options)
    rate = best_rate(
        fine_tuning,
        FINE_TUNING_RATES,
        params,
        tasks.loss,
        tasks.validation,
        key=key,
        episodes=200,
        metric="accuracy",
        chunk=one_on_cpu(200),
    )
    return fine_tuning(rate), params, rate


def baselines_of_inputs(tasks: Tasks) -> dict[str, MetaLearner]:
    """The baselines that train nothing, by the names that they have in a result.

    For classes: class means of the inputs by both distances, and logistic regression on the inputs.
    For numbers: the mean.
    """
    if tasks.metric == "loss":
        return {"support_mean": support_mean(tasks.loss)}
    nearest = partial(nearest_centroid, tasks.loss, ways=tasks.test_ways)
    return {
        "nearest_centroid": nearest(),
        "nearest_centroid_cosine": nearest(distance="cosine"),
        "raw_logistic": raw_logistic(tasks.loss, ways=tasks.test_ways),
    }


def check_learners(choice: Choice, trained: AnyLearner, tested: AnyLearner, tasks: Tasks) -> None:
    """Refuses a learner that cannot learn the training tasks or be tested on the test tasks.

    Raises:
        InputError: as `refuse_other_parameters` and `Choice.check`, or if it trains on classes and
            the tasks have none.
    """
    refuse_other_parameters(trained, tested, tasks.train_x, tasks.test_x)
    if isinstance(tested, TransferLearner) and tasks.labelled is None:
        raise InputError(
            f"`learner={choice.name}` trains on classes, and the target is a number. Choose another"
        )
    choice.check(trained, tasks.train, tasks.loss)


def failure(values: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """A sentence for a regression whose learner is no better than the baseline; else none.

    Args:
        values: of the learner, and then of the baseline: what `score_by_seed` gives.
    """
    name = next(iter(values))
    if "support_mean" not in values:
        return []
    mine, baseline = (float(values[each]["loss"].mean()) for each in (name, "support_mean"))
    if mine < baseline:
        return []
    return [
        f"{name} is no better than the mean of the support targets. Lower its learning rates, or"
        " train for more steps."
    ]


def learner_of_sines(
    config: Mapping[str, Any], *, make: Make | None = None, **changes: Any
) -> MetaLearner:
    """The learner of a run of sinusoid: on the paper's net for sine waves, by squared error.

    Args:
        make: by default the function that the field `learner` names.
        changes: of the learner's own arguments. MAML with `inner_steps=0` is joint training.

    Raises:
        InputError: if it trains on labelled examples.
    """
    make = make or find(config.get("learner", "maml"), REGRESSORS).make
    own = {name: config[name] for name in own_hints(make) if name in config} | changes

    def net_of(outputs: int | None) -> Model:
        sizes = (40, 40) if outputs is None else (40, 40, outputs)
        return mlp(sizes, kernel_init=SINE_INITS[config["init"]])

    return build_for_curves(make, net_of, mean_squared_error, own=own, tasks="sine waves")
