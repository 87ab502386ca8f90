"""The nets and learners of the few-shot experiments.

The nets are those of MAML (https://arxiv.org/abs/1703.03400): conv-4 on the images of section 5.2,
and the dense net on the sine waves of section 5.1.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optax

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.conv4 import MAML_HEAD, XAVIER_HEAD, conv4_omniglot, conv4_pooled
from jaxdl.models.layers.norm import Mode
from jaxdl.models.mlp import INITIALISERS, maml_kernel_init, mlp
from jaxdl.recipes.learners import REGRESSORS, AnyLearner, Make, build, find, finetune, own_hints
from jaxdl.recipes.meta_training import meta_train, one_on_cpu
from jaxdl.recipes.rates import best_rate
from jaxdl.recipes.tasks import Tasks
from jaxdl.runs.run import Run
from jaxdl.types import Array, Key, MetaLearner, Model, Params, TransferLearner

IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "numbers": (8, 16, 1),
    "digits": (8, 8, 1),
    "omniglot": (28, 28, 1),
    "cifar_fs": (32, 32, 3),
    "fc100": (32, 32, 3),
}
"""The images of each data set of the experiment."""
BATCH_NORM: dict[str, str] = {
    "batch": "statistics of the batch at hand, at test too (transductive, as MAML)",
    "support": "statistics of the support set, kept for queries (inductive)",
    "example": "statistics of each example (inductive)",
}
HEADS: dict[str, Any] = {"xavier": XAVIER_HEAD, "normal": MAML_HEAD}
SINE_INITS: dict[str, Any] = {"lecun": INITIALISERS["lecun"], "code": maml_kernel_init}

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
) -> AnyLearner:
    """The learner of a run of few_shot, by the fields of its configuration.

    Args:
        classes: number of training classes, which a `TransferLearner` needs.
        ways: classes per task; by default those of training.
        make: by default the function that the field `learner` names.
    """
    make = make or find(config.get("learner", "maml")).make
    own = {name: config[name] for name in own_hints(make)}
    return _of_images(make, config, classes, ways=ways or config["ways"], own=own)


def fine_tuning_of_images(
    config: Mapping[str, Any], classes: int, lr: float | Array, *, ways: int | None = None
) -> TransferLearner:
    """The baseline: the net classifies all training classes; in a task a new head and all else
    learn.

    Args:
        lr: of the steps in a task.
        ways: as for `learner_of_images`.
    """
    own = {"inner_lr": lr}
    made = _of_images(finetune, config, classes, ways=ways or config["ways"], own=own)
    assert isinstance(made, TransferLearner)
    return made


def _of_images(
    make: Make, config: Mapping[str, Any], classes: int | None, **options: Any
) -> AnyLearner:
    shape, norm = IMAGE_SHAPES[config["data"]], config["norm"]
    net_of = partial(net, shape, filters=config["filters"], norm=norm, head=config["head"])
    learner = build(make, net_of, cross_entropy, classes=classes, **options)
    if norm != "support":
        return learner
    if isinstance(learner, TransferLearner):
        return by_support_statistics(learner)
    return by_support_statistics(learner, cross_entropy)


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
    params = meta_train(run, fine_tuning(0.0), tasks.labelled, **options)
    rate = best_rate(
        fine_tuning,
        FINE_TUNING_RATES,
        params,
        cross_entropy,
        tasks.validation,
        key=key,
        episodes=200,
        metric="accuracy",
        chunk=one_on_cpu(200),
    )
    return fine_tuning(rate), params, rate


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

    learner = build(make, net_of, mean_squared_error, ways=1, classes=None, own=own)
    if isinstance(learner, TransferLearner):
        raise InputError(
            f"`learner={make.__name__}` trains on the labels of classes, and sine waves have none."
            " Choose another"
        )
    return learner
