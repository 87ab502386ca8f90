"""The nets and learners of the few-shot experiments, and `load_run`, which gives them back trained.

They are those of MAML (https://arxiv.org/abs/1703.03400): conv-4 on images of section 5.2, and the
dense net on sine waves of section 5.1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.data.examples import examples
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.data.sets.images import ImageData, Split, few_shot_arrays
from jaxdl.data.sets.two_digits import numbers_few_shot
from jaxdl.errors import InputError, RunError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.finetune import finetune
from jaxdl.meta.inner import ESTIMATORS
from jaxdl.meta.maml import maml
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.conv4 import MAML_HEAD, XAVIER_HEAD, conv4_omniglot, conv4_pooled
from jaxdl.models.layers.norm import Mode
from jaxdl.models.mlp import INITIALISERS, maml_kernel_init, mlp
from jaxdl.runs.identity import recorded_config
from jaxdl.runs.run import Run
from jaxdl.runs.stored import load_best, load_last
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Array, Key, MetaLearner, Model, Params, TrainState, TransferLearner

IMAGE_SHAPES = {
    "numbers": (8, 16, 1),
    "digits": (8, 8, 1),
    "omniglot": (28, 28, 1),
    "cifar_fs": (32, 32, 3),
    "fc100": (32, 32, 3),
}
"""The images of each data set of the experiment."""
BATCH_NORM = {
    "batch": "statistics of the batch at hand, at test too (transductive, as MAML)",
    "support": "statistics of the support set, kept for queries (inductive)",
    "example": "statistics of each example (inductive)",
}
HEADS = {"xavier": XAVIER_HEAD, "normal": MAML_HEAD}
INNER_LOSSES = ("mean", "sum-over-classes")
SINE_INITS = {"lecun": INITIALISERS["lecun"], "code": maml_kernel_init}

# ---- images, nets and learners


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


def maml_of_images(
    shape: tuple[int, ...],
    *,
    ways: int,
    filters: int,
    norm: str,
    head: str,
    inner_lr: float,
    inner_steps: int,
    inner_loss: str,
    estimator: str,
) -> MetaLearner:
    """MAML on `net`, by cross-entropy.

    Args:
        inner_loss: "mean" over the support set, or "sum-over-classes", as in the authors' code.
        estimator: one of `meta.inner.ESTIMATORS`.
    """
    scale = ways if inner_loss == "sum-over-classes" else 1
    learner = maml(
        net(shape, ways, filters=filters, norm=norm, head=head),
        cross_entropy,
        tx=optax.sgd(scale * inner_lr),
        steps=inner_steps,
        estimator=ESTIMATORS[estimator],
    )
    return by_support_statistics(learner, cross_entropy) if norm == "support" else learner


def learner_of_images(config: Mapping[str, Any]) -> MetaLearner:
    """The learner of a run of few_shot, by the fields of its configuration."""
    options = {name: config[name] for name in IMAGES}
    return maml_of_images(IMAGE_SHAPES[config["data"]], **options)


def finetune_of_images(
    shape: tuple[int, ...],
    *,
    classes: int,
    ways: int,
    filters: int,
    norm: str,
    lr: float | Array,
    steps: int = 10,
) -> TransferLearner:
    """The baseline: `net` classifies all training classes; in a task a new head and all else learn.

    Args:
        lr: of the steps in a task.
    """
    features = net(shape, None, filters=filters, norm=norm)
    options: dict[str, Any] = {"classes": classes, "ways": ways}
    learner = finetune(features, cross_entropy, tx=optax.sgd(lr), steps=steps, **options)
    return by_support_statistics(learner) if norm == "support" else learner


def fine_tuning_of_images(
    config: Mapping[str, Any], classes: int, lr: float | Array
) -> TransferLearner:
    """The baseline beside `learner_of_images`; arguments as `finetune_of_images`."""
    options = {name: config[name] for name in ("ways", "filters", "norm")}
    shape = IMAGE_SHAPES[config["data"]]
    return finetune_of_images(shape, classes=classes, lr=lr, **options)


def pretrain(
    run: Run, learner: TransferLearner, data: ImageData, *, lr: float, keys: Key, batch: int = 64
) -> Params:
    """Supervised training on all classes of the data by Adam; the last parameters `[seeds]`."""
    tx, image = optax.adam(lr), jnp.zeros((2, *data.images.shape[1:]))
    state = run.restore(init_states(lambda key: learner.init(key, image), keys, tx))
    stream = task_stream(examples(data.images, data.labels), batch)
    return run.train(make_step(learner.grad, tx), stream, keys, state, tasks=batch).params


def maml_of_sines(
    *, init: str, inner_lr: float | Array, inner_steps: int, estimator: str
) -> MetaLearner:
    """MAML on the paper's net for sine waves, by squared error; joint training with no steps.

    Args:
        init: one of `SINE_INITS`.
        estimator: one of `meta.inner.ESTIMATORS`.
    """
    return maml(
        mlp((40, 40, 1), kernel_init=SINE_INITS[init]),
        mean_squared_error,
        tx=optax.sgd(inner_lr),
        steps=inner_steps,
        estimator=ESTIMATORS[estimator],
    )


# ---- their runs


class LoadedRun(NamedTuple):
    """What a run has learnt: its learner, the parameters of one seed, and its configuration.

    `config` holds the fields of config.yaml by name: `config["test_inner_steps"]` is how many inner
    steps a run of few_shot was tested with, which may be more than the learner takes by itself.

    >>> import jaxdl
    >>> learner, params, config = jaxdl.LoadedRun(
    ...     jaxdl.protonet(jaxdl.mlp([8]), jaxdl.cross_entropy, ways=5), {}, {"ways": 5}
    ... )
    """

    learner: MetaLearner
    params: Params
    config: dict[str, Any]


INTEGER, NUMBER = (int,), (int, float)
IMAGES: dict[str, Any] = {
    "ways": INTEGER,
    "filters": INTEGER,
    "norm": BATCH_NORM,
    "head": HEADS,
    "inner_lr": NUMBER,
    "inner_steps": INTEGER,
    "inner_loss": INNER_LOSSES,
    "estimator": ESTIMATORS,
}
"""What decides the learner of a run of few_shot: for each field its types, or the names allowed."""
SINES: dict[str, Any] = {
    "init": SINE_INITS,
    "inner_lr": NUMBER,
    "inner_steps": INTEGER,
    "estimator": ESTIMATORS,
}
"""The same for a run of sinusoid."""


def load_run(path: Path | str, seed: int = 0) -> LoadedRun:
    """A trained learner, for prediction, from a run of the experiment few_shot or sinusoid.

        learner, params, config = jaxdl.load_run("runs/few_shot/omniglot-5way-1shot-...")
        adapted = learner.adapt(key, params, jaxdl.Batch(images, labels))
        logits = learner.predict(adapted, others)

    Images are `[n, height, width, channels]` in `[0, 1]`. With `norm="batch"` the answers for
    images depend on each other, and a single image is refused.

    >>> import jaxdl
    >>> try:
    ...     jaxdl.load_run("runs/few_shot/none")
    ... except jaxdl.InputError as error:
    ...     print(error)
    there is no run in runs/few_shot/none: it has no config.yaml. Give the folder of a run

    Args:
        path: the run's directory. Those of earlier revisions are read, too.
        seed: which of the seeds that trained in the run, from 0.

    Returns:
        The learner and parameters: those that were best on validation, of sinusoid the last.

    Raises:
        InputError: if it is no run, or one of another experiment, or one of sinusoid that has
            stored nothing yet, or has no such seed.
        RunError: if it is damaged, or one of few_shot that has stored nothing yet.
    """
    directory = Path(path)
    config = recorded_config(directory)
    if config.keys() >= {"data", "ways", "estimator"}:
        config.setdefault("head", "normal")  # before a run could choose
        fields = IMAGES
    elif config.keys() >= {"test_tasks", "estimator"}:
        config.setdefault("init", "code")
        fields = SINES
    else:
        raise InputError(
            f"{directory} is a run of another experiment. load_run reads runs of few_shot and"
            " sinusoid; load_weights reads the weights of any run"
        )
    _check(directory, config, {**fields, "seeds": INTEGER})
    if not 0 <= seed < config["seeds"]:
        raise InputError(
            f"{directory} has no `seed={seed}`: choose one from 0 to {config['seeds'] - 1}"
        )
    load = _load_images if fields is IMAGES else _load_sines
    learner, params = load(directory, config)
    return LoadedRun(learner, per_seed(params)[seed], config)


def _load_images(directory: Path, config: dict[str, Any]) -> tuple[MetaLearner, Params]:
    _check(directory, config, {"data": IMAGE_SHAPES})
    learner, image = learner_of_images(config), jnp.zeros((1, *IMAGE_SHAPES[config["data"]]))
    like = _start(learner, image, config["seeds"]).params
    return learner, load_best(directory, like)[0]


def _load_sines(directory: Path, config: dict[str, Any]) -> tuple[MetaLearner, Params]:
    learner = maml_of_sines(**{name: config[name] for name in SINES})
    return learner, load_last(directory, _start(learner, jnp.zeros((1, 1)), config["seeds"])).params


def _start(learner: MetaLearner, x: Array, seeds: int) -> TrainState:
    """A state of the same structure and shapes as what these trainings store."""

    def start() -> TrainState:
        return init_states(lambda key: learner.init(key, x), run_keys(0, seeds), optax.adam(0.001))

    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(start))


def _check(directory: Path, config: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, allowed in fields.items():
        value = config.get(name)
        if not _fits(value, allowed):
            raise RunError(f"{directory}/config.yaml is damaged: {name} is {value!r}")


def _fits(value: Any, allowed: Any) -> bool:
    if allowed in (INTEGER, NUMBER):
        return isinstance(value, allowed)
    return isinstance(value, str) and value in allowed
