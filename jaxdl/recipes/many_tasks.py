"""Many tasks on one image: single nets, compared to one shared net under each combination method.

An experiment provides the data as a `Problem`, the trunk, the head and the methods. `compare`
trains all methods from the same start, on the same batches.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, supervised
from jaxdl.losses import cross_entropy
from jaxdl.models.linen import without_stats
from jaxdl.multitask.aligned import aligned
from jaxdl.multitask.cagrad import cagrad
from jaxdl.multitask.combine import TaskMethod
from jaxdl.multitask.dwa import dwa
from jaxdl.multitask.equal import equal
from jaxdl.multitask.famo import famo
from jaxdl.multitask.gradients import multitask_step, task_grads
from jaxdl.multitask.gradnorm import gradnorm
from jaxdl.multitask.gradvac import gradvac
from jaxdl.multitask.imtl import imtl
from jaxdl.multitask.mgda import mgda
from jaxdl.multitask.nash import nash
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.rlw import rlw
from jaxdl.multitask.sharing import hard_sharing
from jaxdl.multitask.uncertainty import uncertainty
from jaxdl.multitask.upgrad import upgrad
from jaxdl.optim.qp import gram
from jaxdl.optim.schedules import cosine
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.config import Range, Start, each_once
from jaxdl.runs.run import Run, say
from jaxdl.runs.weights import from_weights
from jaxdl.train.evaluation import Predict, predict_all
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_state, make_step
from jaxdl.train.streams import run_keys
from jaxdl.types import (
    Array,
    Batch,
    GradFn,
    Key,
    Metrics,
    Model,
    Params,
    StepFn,
    Stream,
    TrainState,
)

METHODS: dict[str, Callable[[int], TaskMethod]] = {
    "equal": lambda tasks: equal(),
    "uncertainty": lambda tasks: uncertainty(tasks=tasks, tx=optax.adam(0.002)),
    "gradnorm": lambda tasks: gradnorm(tasks=tasks, tx=optax.adam(0.025), alpha=1.5),
    # The paper's period is an epoch, but the default run has only two epochs.
    "dwa": lambda tasks: dwa(tasks=tasks, every=100),
    "rlw": lambda tasks: rlw(),
    "mgda": lambda tasks: mgda(),
    "pcgrad": lambda tasks: pcgrad(),
    "gradvac": lambda tasks: gradvac(tasks=tasks),
    "cagrad": lambda tasks: cagrad(),
    "imtl": lambda tasks: imtl(tasks=tasks, tx=optax.adam(0.002)),
    "nash": lambda tasks: nash(),
    "aligned": lambda tasks: aligned(),
    "famo": lambda tasks: famo(tasks=tasks, tx=optax.adam(0.025)),
    "upgrad": lambda tasks: upgrad(),
}
"""The methods by name, as functions of the number of tasks."""

Probe = Callable[[Stream, Key, Params, Array], Array]
"""`(stream, keys, params, step) -> [seeds]`: the share of task pairs with conflicting gradients."""


class Problem(NamedTuple):
    """Names of the tasks, the number of classes per task, and their data.

    `stream` gives batches with labels `[batch, tasks]`. `validation` and `test` are pairs of images
    `[n, height, width, 1]` and labels `[n, tasks]`. `transform` turns images into inputs of a net.
    """

    names: tuple[str, ...]
    classes: int
    stream: Stream
    validation: tuple[Array, Array]
    test: tuple[Array, Array]
    transform: Callable[[Any], Array]


class Training(NamedTuple):
    """The training that all methods share.

    In the order of the fields: run keys `[seeds]`, images per step, steps between validations,
    batches on which conflicts are counted, and the number of devices that share a step.
    """

    keys: Key
    batch: int
    eval_every: int
    probes: int
    devices: int


def training_of(config: Mapping[str, Any], devices: int) -> Training:
    """The training by the `flat` fields of a configuration, on `devices` devices (0 for all)."""
    return Training(
        keys=run_keys(config["seed"], config["seeds"]),
        devices=parallel.count_devices(devices),
        **{name: config[name] for name in ("batch", "eval_every", "probes")},
    )


class Contender(NamedTuple):
    """A net to train: parameters `[seeds]` before the first step, and the function that predicts.

    `predict` returns logits `[n, tasks, classes]`.
    """

    start: Params
    predict: Predict


# ---- nets


def contender(problem: Problem, net: Model, keys: Key) -> Contender:
    """A net for all tasks, before training. It is compiled once for all methods."""
    image = problem.transform(problem.test[0][:1])
    start = lax.map(lambda key: net.init(key, image), keys)
    return Contender(start, predict_all(without_stats(net), problem.transform))


def side_by_side(alone: Model, tasks: int) -> Model:
    """`tasks` separate nets as one: parameters `[tasks, ...]`, logits `[n, tasks, classes]`."""

    def init(key: Key, x: Any) -> Params:
        return jax.vmap(alone.init, (0, None))(jax.random.split(key, tasks), x)

    def apply(params: Params, x: Any, **options: Any) -> Array:
        return jnp.moveaxis(lax.map(lambda own: alone.apply(own, x, **options), params), 0, 1)

    return Model(init, apply)


def each_alone(alone: Model) -> GradFn:
    """The gradients of `side_by_side` nets. Each net has its own task's loss, one after another."""
    grad = supervised(alone, cross_entropy)

    def grads(key: Key, step: Array, params: Params, batch: Batch) -> tuple[Any, Metrics]:
        def of_task(task: tuple[Params, Array]) -> tuple[Any, Metrics]:
            own, y = task
            return grad(key, step, own, Batch(batch.x, y))

        found, metrics = lax.map(of_task, (params, batch.y.T))
        return found, jax.tree.map(jnp.mean, metrics)

    return grads


# ---- training and evaluation


def check_methods(methods: Sequence[str], validation: int) -> None:
    """Validates that methods are known, occur once and contain "equal", and that two or more images
    are held out.

    Raises:
        InputError: if not. The message names the field.
    """
    Range(2).refuse("validation", validation)
    each_once("methods", methods, METHODS)
    if "equal" not in methods:
        raise InputError(
            f"`methods={' '.join(methods)}`: add equal, because the others are compared to it"
        )


def compare(
    run: Run,
    problem: Problem,
    trunk: Model,
    head: Model,
    methods: Sequence[str],
    config: Mapping[str, Any],
    start: Start,
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains single nets, and a shared net under each method, in parts of the run.

    Args:
        methods: names of `METHODS`, "equal" among them.
        config: the `flat` fields of a configuration. Adam's learning rate starts at `lr` and falls
            to 0 in `decay_steps`.
        start: weights of the shared net.

    Returns:
        The content of result.json, with the scores of the single nets as "single". And the logits
        `[seeds, n, tasks, classes]` of equal weights on the test images.
    """
    training = training_of(config, run.flags.devices)
    tx = optax.adam(cosine(config["lr"], config["decay_steps"]))
    tasks, axis = len(problem.names), parallel.axis_name(training.devices)
    one = hard_sharing(trunk, [head])
    alone = Model(one.init, lambda params, x, **options: one.apply(params, x, **options)[0])
    single = contender(problem, side_by_side(alone, tasks), training.keys)
    step = make_step(over_devices(each_alone(alone), axis), tx)
    found = {"single": learn(run.part("single"), problem, single, step, tx, training)}

    net = hard_sharing(trunk, [head] * tasks)
    stacked = Model(net.init, lambda params, x, **options: jnp.stack(net.apply(params, x), 1))
    shared = contender(problem, stacked, training.keys)
    given, _ = from_weights(start.init_from, start.init_except, shared.start)
    shared = Contender(given, shared.predict)
    probe = conflicts(task_grads(net, cross_entropy), training.probes)
    for name in methods:
        method = METHODS[name](tasks)
        step = multitask_step(net, cross_entropy, method, tx, axis_name=axis)
        both = optax.chain(method, tx)
        found[name] = learn(run.part(name), problem, shared, step, both, training, probe)
    result = {
        "methods": {name: of_test for name, (of_test, _) in found.items()},
        "tasks": problem.names,
        "base_rates": base_rates(np.asarray(problem.test[1])),
        "images": {name: len(getattr(problem, name)[1]) for name in ("validation", "test")},
        "batch_norm": "none",
        "config": config,
    }
    return result, found["equal"][1]


def learn(
    part: Run,
    problem: Problem,
    net: Contender,
    step: StepFn,
    tx: optax.GradientTransformation,
    training: Training,
    probe: Probe | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains all seeds. Returns test scores, and test logits `[seeds, n, tasks, classes]`."""
    keys, seeds = training.keys, len(training.keys)
    state = jax.jit(jax.vmap(lambda params: init_state(params, tx)))(net.start)
    state = part.restore(state._replace(step=jnp.int32(0)))

    def validate(state: TrainState) -> Metrics:
        images, labels = problem.validation
        accuracy = right(answers(net, state.params, images), labels).mean(axis=(1, 2))
        found: dict[str, Any] = {"accuracy": accuracy}
        if probe is not None:
            found["conflicts"] = probe(problem.stream, keys, state.params, state.step)
        return found

    state = part.train(
        step,
        problem.stream,
        keys,
        state,
        validate=clocked(part, validate),
        eval_every=training.eval_every,
        devices=training.devices,
    )
    logits = answers(net, state.params, problem.test[0])
    seen, clock = part.metrics("validation"), part.metrics("time")
    found = {
        **scores(logits, np.asarray(problem.test[1])),
        "validation": seeds_summary(seen["accuracy"][-1]),
        "conflicts": None if probe is None else seeds_summary(seen["conflicts"].mean(axis=0)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)) // seeds,
        "ms_per_step": float(np.median(clock["ms_per_step"])) / seeds if clock else None,
    }
    say(f"{part.directory.name}: test accuracy {found['mean']['mean']:.4f}")
    return found, logits


def clocked(part: Run, validate: Callable[[TrainState], Metrics]) -> Callable[[Any], Metrics]:
    """`validate`, which also journals the milliseconds per step since the last validation.

    This time is without compilation, without validation, and without the steps before a resume.
    """
    last: list[tuple[int, float]] = []

    def both(state: TrainState) -> Metrics:
        now, step = time.perf_counter(), int(state.step)
        if last and step > last[0][0]:
            ms = 1000 * (now - last[0][1]) / (step - last[0][0])
            part.log(step, "time", {"ms_per_step": ms})
        found = jax.block_until_ready(validate(state))
        last[:] = [(step, time.perf_counter())]
        return found

    return both


def conflicts(grads: GradFn, count: int) -> Probe:
    """`(stream, keys, params, step) -> [seeds]`: the share of task pairs that conflict.

    Two tasks conflict on a batch if their gradients in the trunk have a negative inner product. The
    share is over all pairs, and over the next `count` batches of each seed.
    """

    @jax.jit
    def probe(stream: Stream, keys: Key, params: Params, step: Array) -> Array:
        def of_seed(seed: tuple[Key, Params]) -> Array:
            key, own = seed

            def of_batch(i: Array) -> Array:
                each, _ = grads(key, i, own, stream(key, i))
                products = gram(each.trunk)
                return jnp.mean(products[np.triu_indices(len(products), 1)] < 0)

            return jnp.mean(lax.map(of_batch, step + jnp.arange(count)))

        return lax.map(of_seed, (keys, params))

    return probe


def answers(net: Contender, params: Params, images: Array) -> np.ndarray:
    """Logits `[seeds, n, tasks, classes]`."""
    return np.stack([net.predict(each, {}, images) for each in per_seed(params)])


def right(logits: np.ndarray, labels: Any) -> np.ndarray:
    """Which predictions are right, `[seeds, n, tasks]`."""
    return np.asarray(logits.argmax(axis=-1) == np.asarray(labels))


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Scores of logits `[seeds, n, tasks, classes]` for labels `[n, tasks]`, over seeds.

    They are `accuracy` per task and its `mean`. With two classes, there are three more. `f1` is the
    F1 score of class 1 per task, or 0 if class 1 neither occurs nor is predicted. `f1_mean` is its
    mean. `ten_way` takes the task with the largest difference of logits, and is the share of images
    on which the label of this task is 1.
    """
    accuracy = right(logits, labels).mean(axis=1)
    found = {"accuracy": each(accuracy), "mean": seeds_summary(accuracy.mean(axis=1))}
    if logits.shape[-1] > 2:
        return found
    predicted = logits.argmax(axis=-1)
    hits = (predicted * labels).sum(axis=1)
    f1 = 2 * hits / np.maximum(predicted.sum(axis=1) + labels.sum(axis=0), 1)
    best = (logits[..., 1] - logits[..., 0]).argmax(axis=-1)
    ten_way = labels[np.arange(len(labels)), best].mean(axis=1)
    return {
        **found,
        "f1": each(f1),
        "f1_mean": seeds_summary(f1.mean(axis=1)),
        "ten_way": seeds_summary(ten_way),
    }


def each(values: np.ndarray) -> list[dict[str, Any]]:
    """Summaries of values `[seeds, tasks]`, one per task."""
    return [seeds_summary(of_task) for of_task in values.T]


def base_rates(labels: np.ndarray) -> list[float]:
    """Per task, the share of the most frequent label in the labels `[n, tasks]`."""
    return [float(np.bincount(of_task).max() / len(labels)) for of_task in labels.T]
