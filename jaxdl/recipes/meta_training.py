"""Meta-training inside a run, for all experiments with a meta-learner."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl import parallel
from jaxdl.grads import over_tasks
from jaxdl.meta.base import evaluate
from jaxdl.meta.feature_mean import averaging_mean
from jaxdl.optim.schedules import cosine
from jaxdl.recipes.blocks import in_blocks
from jaxdl.runs.config import Start
from jaxdl.runs.run import Run
from jaxdl.runs.weights import started
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import (
    GradFn,
    Key,
    LossFn,
    MetaLearner,
    Params,
    PyTree,
    Sampler,
    TaskLearner,
    TrainState,
    TransferLearner,
)

Validate = Callable[[TrainState], Mapping[str, Any]]


def meta_train(
    run: Run,
    learner: MetaLearner | TransferLearner,
    sample: Sampler,
    *,
    tx: optax.GradientTransformation,
    keys: Key,
    x: PyTree,
    tasks: int,
    chunk: int | None,
    start: Start | None = None,
    validate: Validate | None = None,
    eval_every: int | None = None,
    best: str = "",
) -> Params:
    """Trains, or resumes, the run. Returns the parameters `[seeds]` after its last step.

    Args:
        sample: draws an episode; for a `TransferLearner`, which trains on one device, an example.
        keys: run keys `[seeds]`, see `run_keys`.
        x: example inputs for the initialisation of parameters.
        tasks: episodes or examples per step. The devices of the run share the episodes.
        chunk: see `over_tasks`.
        start: weights to start from. By default there are none.
        validate, eval_every, best: see `Run.train`.
    """
    devices = devices_for(learner, run)
    grad = grad_of(learner, devices=devices, chunk=chunk)
    state = _initial(learner, tx, keys, x, start)
    options: dict[str, Any] = {"validate": validate, "eval_every": eval_every, "best": best}
    return run.train(
        make_step(grad, tx),
        task_stream(sample, tasks),
        keys,
        run.restore(state),
        devices=devices,
        **options,
    ).params


def devices_for(learner: MetaLearner | TransferLearner, run: Run) -> int:
    """How many devices share the tasks of a step; a `TransferLearner` trains on one."""
    devices = parallel.count_devices(run.flags.devices)
    return 1 if isinstance(learner, TransferLearner) else devices


def grad_of(learner: MetaLearner | TransferLearner, *, devices: int, chunk: int | None) -> GradFn:
    """The gradient of a learner on the episodes, or the examples, of a step."""
    if isinstance(learner, TransferLearner):
        return learner.grad
    return over_tasks(learner.grad, chunk=chunk, axis_name=parallel.axis_name(devices))


def optimiser(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Adam by the fields `lr`, `schedule`, `decay_steps`, `steps` and `clip` of a configuration.

    `clip` is the largest absolute value of an element of the gradient; 0 does not clip. A mean of
    features is no weight: see `averaging_mean`.
    """
    clip = [optax.clip(config["clip"])] if config["clip"] else []
    end = (config["decay_steps"] or config["steps"]) if config["schedule"] == "cosine" else 0
    return averaging_mean(optax.chain(*clip, optax.adam(cosine(config["lr"], end))))


def initial_params(
    learner: MetaLearner | TransferLearner, *, keys: Key, x: PyTree, start: Start | None = None
) -> Params:
    """The parameters `[seeds]` from which `meta_train` starts with the same arguments."""
    return _initial(learner, optax.identity(), keys, x, start).params


def _initial(
    learner: MetaLearner | TransferLearner,
    tx: optax.GradientTransformation,
    keys: Key,
    x: PyTree,
    start: Start | None,
) -> TrainState:
    state = init_states(lambda key: learner.init(key, x), keys, tx)
    return state if start is None else started(state, start.init_from, start.init_except)


def validation_of(
    learner: TaskLearner,
    loss: LossFn,
    sample: Sampler,
    *,
    key: Key,
    episodes: int,
    steps: int | None,
    chunk: int | None,
    devices: int = 1,
) -> Validate:
    """`state -> {metric: [seeds]}`: means over episodes, which are the same at each call.

    Args:
        steps: inner steps. None is the number of training.
        chunk, devices: as for `evaluate`.
    """
    options: dict[str, Any] = {"depths": (steps,), "chunk": chunk, "devices": devices}
    measure = in_blocks(partial(evaluate, learner, loss, sample, **options), episodes, "validation")

    def validate(state: TrainState) -> dict[str, list[float]]:
        found = measure(key, per_seed(state.params))
        # JAX's mean, as always: NumPy's adds in another order.
        return {name: [float(jnp.mean(each)) for each in all_] for name, all_ in found.items()}

    return validate


def one_on_cpu(many: int | None) -> int | None:
    """The number of tasks or episodes to compute at once: 1 on a CPU, because of its cache, else
    `many`."""
    return 1 if jax.default_backend() == "cpu" else many
