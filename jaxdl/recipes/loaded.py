"""`load_run` gives back the trained learner of a run of few_shot or sinusoid."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.errors import InputError, content_of, damaged, in_short
from jaxdl.files.atomic import read_json
from jaxdl.files.paths import whole_path
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.recipes.arguments import check_images, check_rows, check_task
from jaxdl.recipes.choice import find, own_hints
from jaxdl.recipes.few_shot import (
    BATCH_NORM,
    HEADS,
    IMAGE_SHAPES,
    SINE_INITS,
    image_shape,
    learner_of_images,
    learner_of_sines,
)
from jaxdl.recipes.learners import LEARNERS, REGRESSORS, AnyLearner, Make
from jaxdl.recipes.own_data import OWN
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.code import is_file_name
from jaxdl.runs.identity import DIGESTS, recorded_config
from jaxdl.runs.keywords import fits
from jaxdl.runs.recorded import CONFIG
from jaxdl.runs.stored import load_best, load_last
from jaxdl.train.loop import per_seed
from jaxdl.train.memory import refuse_too_large
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, LossFn, Params, PyTree, TrainState, TransferLearner


class LoadedRun(NamedTuple):
    """What a run has learnt: its learner, the parameters of one seed, and its configuration.

    `config` holds the fields of config.yaml by name: `config["test_inner_steps"]` is how many inner
    steps a run of few_shot was tested with, which may be more than the learner takes by itself.

    >>> import jaxdl
    >>> learner, params, config = jaxdl.LoadedRun(
    ...     jaxdl.protonet(jaxdl.mlp([8]), jaxdl.cross_entropy, ways=5), {}, {"ways": 5}
    ... )
    """

    learner: AnyLearner
    params: Params
    config: dict[str, Any]


IMAGES: dict[str, Any] = {
    "data": (*IMAGE_SHAPES, *OWN),
    "ways": int,
    "filters": int,
    "norm": tuple(BATCH_NORM),
    "head": tuple(HEADS),
    "test_ways": int | None,
    "test_inner_steps": int | None,
}
"""What decides the learner of a run of few_shot: for each field its type, or the names allowed.

The learner's own arguments stand beside them."""
SINES: dict[str, Any] = {"init": tuple(SINE_INITS)}
"""The same for a run of sinusoid."""
SIZES = {"ways", "test_ways", "filters", "size", "hidden", "seeds"}
"""The fields that are 1 at least."""
LARGEST = 2**20
"""The largest whole number in a field. JAX cannot compute the shapes of much larger nets."""


def load_run(path: Path | str, seed: int = 0, *, ways: int | None = None) -> LoadedRun:
    """A trained learner, for prediction, from a run of the experiment few_shot or sinusoid.

        learner, params, config = jaxdl.load_run("runs/few_shot/omniglot-5way-1shot-...")
        adapted = learner.adapt(key, params, jaxdl.Batch(images, labels))
        logits = learner.predict(adapted, others)

    Inputs and labels are checked, but not inside jit, where their values are not known. Images are
    `[n, height, width, channels]` in `[0, 1]`. With `norm="batch"` the answers for
    images depend on each other, and a single image is refused. Columns of a table are in the order
    and the standard units of `scaling` in the run's result.json. So are targets that are numbers:
    `target_mean` and `target_std`. A run with a learner of your own
    holds a copy of its code, and load_run executes it: load only runs that you trust.

    >>> import jaxdl
    >>> try:
    ...     jaxdl.load_run("runs/few_shot/none")
    ... except jaxdl.InputError as error:
    ...     print(error)
    there is no run in runs/few_shot/none: it has no config.yaml. Give the folder of a run

    Args:
        path: the run's directory. Those of earlier revisions are read, too.
        seed: which of the seeds that trained in the run, from 0.
        ways: classes per task, for a run of few_shot. None: those of its test tasks. Only learners
            such as ProtoNet take another number, because their parameters do not depend on it.

    Returns:
        The learner and parameters: those that were best on validation, of sinusoid the last.

    Raises:
        InputError: if it is no run, or one of another experiment, or one of sinusoid that has
            stored nothing yet, or has no such seed, or cannot have so many ways.
        RunError: if it is damaged, or one of few_shot that has stored nothing yet.
    """
    directory = whole_path(path, "path")
    config = recorded_config(directory)
    if config.keys() >= {"data", "ways", "rotations", "filters"}:
        config.setdefault("head", "normal")  # before a run could choose
        fields = IMAGES
    elif config.keys() >= {"test_tasks", "shots"}:
        config.setdefault("init", "code")
        fields = SINES
    else:
        raise InputError(
            f"{directory} is a run of another experiment. load_run reads runs of few_shot and"
            " sinusoid; load_weights reads the weights of any run"
        )
    if ways is not None and not (fits(ways, int) and ways >= 1):
        raise InputError(f"`ways={ways}`: give the number of classes per task, at least 1")
    numbers = fields is SINES or (config.get("task") and _outputs(directory)[2] == "loss")
    make = _make(directory, config, REGRESSORS if numbers else LEARNERS)
    if config.get("data") in OWN:
        fields = {**fields, "size": int, "grey": bool, "hidden": tuple[int, ...], "task": str}
    _check(directory, config, {**fields, **own_hints(make), "seeds": int})
    if not 0 <= seed < config["seeds"]:
        raise InputError(
            f"{directory} has no `seed={seed}`: choose one from 0 to {config['seeds'] - 1}"
        )
    if fields is SINES:
        learner, params = _load_sines(directory, config, make)
    else:
        learner, params = _load_few_shot(directory, config, make, ways)
    return LoadedRun(learner, per_seed(params)[seed], config)


def _make(directory: Path, config: dict[str, Any], learners: Mapping[str, Make]) -> Make:
    """The learner's function; that of an own learner from the copy in the run."""
    name = config.setdefault("learner", "maml")
    if not isinstance(name, str):
        raise damaged(directory / CONFIG, f"learner is {in_short(repr(name))}")
    if not is_file_name(name):
        return find(name, learners).make
    path, _, function = name.rpartition(":")
    copy = directory / "learner" / Path(path).name
    choice = find(f"{copy}:{function}")
    if choice.code is None or choice.code.digest != config.get(DIGESTS["learner"]):
        raise damaged(copy.parent, "it is not the code that trained", "Restore it")
    return choice.make


def _load_few_shot(
    directory: Path, config: dict[str, Any], make: Make, asked: int | None
) -> tuple[AnyLearner, Params]:
    table = config["data"] == "table"
    ways: int = config.get("test_ways") or config["ways"]
    loss: LossFn = cross_entropy
    if table and config["task"]:
        ways, loss, _ = _outputs(directory)
    x = jnp.zeros((2, 1) if table else (2, *image_shape(config)))
    learner = learner_of_images(config, 2, ways=ways, make=make, loss=loss)
    like = _start(learner, x, config["seeds"]).params
    if asked not in (None, ways):
        other = learner_of_images(config, 2, ways=asked, make=make, loss=loss)
        if _shapes(_start(other, x, config["seeds"]).params) != _shapes(like):
            raise InputError(
                f"{directory} was trained for tasks of {ways} classes, and its parameters depend on"
                f" that number. Give {ways} classes, not {asked}"
            )
        learner = other
    result = directory / "result.json"
    check: Callable[[Any], None] = lambda x: None  # noqa: E731
    if not table:
        check = partial(check_images, shape=image_shape(config))
    elif result.exists() and read_json(result).get("scaling"):
        with content_of(result, "Put the file back"):
            check = partial(check_rows, columns=read_json(result)["scaling"]["columns"])
    learner = check_task(learner, (asked or ways) if loss is cross_entropy else None, check)
    if table or isinstance(learner, TransferLearner):
        like = _as_stored(directory / "best", like)
    return learner, load_best(directory, like)[0]


def _outputs(directory: Path) -> tuple[int, LossFn, str]:
    """The outputs, the loss and the metric for a table with a task column, which no field says."""
    path = directory / "result.json"
    if not path.exists():
        raise InputError(f"{directory} is not finished. Let the run finish before you load it")
    result = read_json(path)
    with content_of(path, "Put the file back"):
        metric = result["metric"]
        return result["outputs"], mean_squared_error if metric == "loss" else cross_entropy, metric


def _load_sines(directory: Path, config: dict[str, Any], make: Make) -> tuple[AnyLearner, Params]:
    learner = learner_of_sines(config, make=make)
    return learner, load_last(directory, _start(learner, jnp.zeros((2, 1)), config["seeds"])).params


def _start(learner: AnyLearner, x: Array, seeds: int) -> TrainState:
    """A state of the same structure and shapes as what these trainings store."""

    def start() -> TrainState:
        return init_states(lambda key: learner.init(key, x), run_keys(0, seeds), optax.adam(0.001))

    state = jax.eval_shape(start)
    refuse_too_large(state, 1)  # of all seeds
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)


def _shapes(params: Params) -> PyTree:
    return jax.tree.map(np.shape, params)


def _as_stored(folder: Path, like: Params) -> Params:
    """Parameters with the structure of `like` and the shapes of the stored ones.

    The head of a pretrained net has an output for each training class, and the net of a table has
    an input for each column. The configuration does not know these numbers.
    """
    with Checkpoints(folder) as checkpoints:
        stored = [array for leaf, array in checkpoints.arrays() if leaf.path[0][1] == "params"]
    if len(stored) != len(jax.tree.leaves(like)):
        return like  # `load_best` says what differs
    return jax.tree.unflatten(jax.tree.structure(like), [np.zeros_like(each) for each in stored])


def _check(directory: Path, config: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, hint in fields.items():
        value = config.get(name)
        valid = value in hint if isinstance(hint, tuple) else fits(value, hint)
        numbers: list[Any] = value if isinstance(value, list) else [value]
        least = 1 if name in SIZES else -LARGEST
        if not valid or any(fits(n, int) and not least <= n <= LARGEST for n in numbers):
            raise damaged(directory / CONFIG, f"{name} is {in_short(repr(value))}")
