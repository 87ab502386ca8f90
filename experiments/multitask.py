"""Many tasks in one net: overlaid digits under fourteen combination methods, and ten questions.

`--case overlaid`, the default, is MultiMNIST (arXiv:1710.09829, arXiv:1810.04650): two digits on
one canvas, and a task for each. A LeNet as shared trunk and two small heads are trained by every
method of `jaxdl.multitask`, beside two nets of one task each. `--case binary` asks ten related
questions of one digit, "is it a d?", of one net with ten heads, beside ten nets. The last 5,000
training images are held out to make choices on, none is made on test, and the last parameters are
reported. All methods have the same step size, for Adam, and their papers' own settings.

Command: scripts/run multitask [--case binary]
Runtime: overlaid 75 minutes on 2 CPU cores that other work shared, binary 18; a fifth of the steps
    of overlaid takes 260 s on 2 quiet cores
Result: overlaid, mean test accuracy in %, 3 seeds: two single nets 97.68, one net, equal weights,
    97.07, with the thirteen other methods 96.86 (mgda) to 97.29 (uncertainty); ten questions: F1 of
    ten nets 98.66, of one net 98.82, with 15 % of the parameters
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.reports import multitask as words
from jaxdl import parallel
from jaxdl.data.augment import normalise
from jaxdl.data.epochs import epochs
from jaxdl.data.sets.images import STATISTICS, image_splits
from jaxdl.data.sets.multimnist import overlaid_epochs, overlaid_pairs
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, supervised
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
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
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run, say
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
    # The paper's period is an epoch, of which the default run has two.
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
"""The methods by name, for so many tasks."""

Probe = Callable[[Stream, Key, Params, Array], Array]
PAIRS = 20_241_017
"""The seed of the pairs to judge on: the same for all runs."""


@dataclasses.dataclass(frozen=True)
class Config:
    case: Literal["overlaid", "binary"] = "overlaid"
    """Two overlaid digits, each a task; or one digit and ten questions, "is it a d?"."""
    methods: tuple[str, ...] = ()
    """Combination methods, "equal" among them; by default all for overlaid, equal for binary."""
    steps: int = 2000
    """Training steps of each run."""
    batch: int = 64
    """Images a step, over all devices."""
    lr: float = 0.002
    """Adam's step size at the start, for all nets and methods."""
    decay_steps: int = 2000
    """Steps in which it falls to 0 along a cosine; 0 leaves it as it is."""
    validation: int = 5000
    """Training images, the last ones, that are held out to make choices on."""
    eval_every: int = 400
    """Steps between validations, a multiple of `log_every`."""
    probes: int = 20
    """Batches at each validation on which conflicts of task gradients are counted."""
    init_from: Path | None = None
    """Start the shared net, under every method, from these weights: a .npz of weights, or a
    part of a run, say DIRECTORY/equal, of whose seeds each starts one here."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: heads, say."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """How many seeds, from `seed` upward, train in one program."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


class Problem(NamedTuple):
    """Tasks by name, each with so many classes; a stream of batches with labels `[batch, tasks]`,
    and two pairs of images `[n, h, w, 1]` and labels `[n, tasks]` to judge on."""

    names: tuple[str, ...]
    classes: int
    stream: Stream
    validation: tuple[Array, Array]
    test: tuple[Array, Array]


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    with open_run("multitask", config, label=config.case) as run:
        result = run.result() or experiment(config, run)
    print(words.report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "steps", "batch", "eval_every", "probes", "seeds")
    at_least(config, 0, "seed", "decay_steps")
    at_least(config, 2, "validation")
    above_zero(config, "lr")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)
    names = methods_of(config)
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"--methods {unknown[0]}: choose among {' '.join(METHODS)}")
    if "equal" not in names or len(set(names)) < len(names):
        raise InputError(
            f"--methods {' '.join(names)}: give each once, and equal, which others are compared to"
        )


def methods_of(config: Config) -> tuple[str, ...]:
    """The methods of a configuration."""
    every = tuple(METHODS) if config.case == "overlaid" else ("equal",)
    return config.methods or every


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """The single nets, the shared net under each method, and the pictures."""
    problem, methods = load(config), methods_of(config)
    tasks, head = len(problem.names), mlp((50, problem.classes))
    axis, tx = parallel.axis_name(devices_of(config)), optimiser(config)

    one = hard_sharing(trunk(), [head])
    alone = Model(one.init, lambda params, x, **options: one.apply(params, x, **options)[0])
    single = contender(config, problem, side_by_side(alone, tasks))
    step = make_step(over_devices(each_alone(alone), axis), tx)
    learnt = {"single": learn(config, run.part("single"), problem, single, step, tx)}

    net = hard_sharing(trunk(), [head] * tasks)
    stacked = Model(net.init, lambda params, x, **options: jnp.stack(net.apply(params, x), 1))
    shared = contender(config, problem, stacked)
    start, _ = from_weights(config.init_from, config.init_except, shared.start)
    shared = Contender(start, shared.predict)
    probe = conflicts(task_grads(net, cross_entropy), config.probes)
    for name in methods:
        method = METHODS[name](tasks)
        step = multitask_step(net, cross_entropy, method, tx, axis_name=axis)
        both = optax.chain(method, tx)
        learnt[name] = learn(config, run.part(name), problem, shared, step, both, probe)

    result = {
        "methods": {name: found for name, (found, _) in learnt.items()},
        "tasks": problem.names,
        "base_rates": base_rates(np.asarray(problem.test[1])),
        "images": {name: len(getattr(problem, name)[1]) for name in ("validation", "test")},
        "config": dataclasses.asdict(config),
    }
    result["finding"] = words.finding(result)
    if config.case == "overlaid":
        run.picture("accuracy", partial(words.draw_accuracy, result), size=(7.5, 5.5))
        predicted = learnt["equal"][1][0].argmax(axis=-1)
        canvases, labels = map(np.asarray, problem.test)
        samples = partial(words.draw_samples, canvases, labels, predicted)
        run.picture("samples", samples, size=(11, 7))
    else:
        run.picture("f1", partial(words.draw_questions, result), size=(7.5, 4.5))
    return run.finish(result)


# ---- data


def load(config: Config) -> Problem:
    """The data of a case, on the device."""
    data = image_splits("mnist", validation=config.validation, data_dir=config.data_dir)
    train, judged = data["train"], (data["validation"], data["test"])
    if config.case == "overlaid":
        options: dict[str, Any] = {"batch": config.batch, "transform": as_seen}
        stream = overlaid_epochs(train.images, train.labels, **options)
        key = jax.random.key(PAIRS)
        pairs = [overlaid_pairs(key, part.images, part.labels) for part in judged]
        return Problem(("left", "right"), 10, stream, *pairs)
    options = {"batch": config.batch, "transform": lambda key, image: as_seen(image)}
    stream = epochs(train.images, questions(train.labels), **options)
    asked = [(jnp.asarray(part.images), jnp.asarray(questions(part.labels))) for part in judged]
    return Problem(train.class_names, 2, stream, *asked)


def questions(labels: np.ndarray) -> np.ndarray:
    """Digits `[n]` as the answers `[n, 10]` to "is it a d?", 0 or 1."""
    return (labels[:, None] == np.arange(10)).astype(np.int32)


def as_seen(image: Any) -> Array:
    """Bytes as a net sees them."""
    return normalise(image, *STATISTICS["mnist"])


# ---- nets


def trunk() -> Model:
    """What the tasks share, or each has for itself: LeNet as far as 50 features."""
    return lenet(50, torch_init=False)


class Contender(NamedTuple):
    """Parameters `[seeds]` before the first step, and logits `[n, tasks, classes]` by `predict`."""

    start: Params
    predict: Predict


def contender(config: Config, problem: Problem, net: Model) -> Contender:
    """A net for all tasks, before training; compiled once for all methods."""
    image, keys = as_seen(problem.test[0][:1]), run_keys(config.seed, config.seeds)
    start = lax.map(lambda key: net.init(key, image), keys)
    return Contender(start, predict_all(without_stats(net), as_seen))


def side_by_side(alone: Model, tasks: int) -> Model:
    """So many nets that share nothing as one: parameters `[tasks, ...]`, logits `[n, tasks, .]`."""

    def init(key: Key, x: Any) -> Params:
        return jax.vmap(alone.init, (0, None))(jax.random.split(key, tasks), x)

    def apply(params: Params, x: Any, **options: Any) -> Array:
        return jnp.moveaxis(lax.map(lambda own: alone.apply(own, x, **options), params), 0, 1)

    return Model(init, apply)


def each_alone(alone: Model) -> GradFn:
    """The gradients of nets side by side, each of its own task's loss, one after another."""
    grad = supervised(alone, cross_entropy)

    def grads(key: Key, step: Array, params: Params, batch: Batch) -> tuple[Any, Metrics]:
        def of_task(task: tuple[Params, Array]) -> tuple[Any, Metrics]:
            own, y = task
            return grad(key, step, own, Batch(batch.x, y))

        found, metrics = lax.map(of_task, (params, batch.y.T))
        return found, jax.tree.map(jnp.mean, metrics)

    return grads


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam, whose step size falls along a cosine."""
    decay = config.decay_steps
    return optax.adam(optax.cosine_decay_schedule(config.lr, decay) if decay else config.lr)


def devices_of(config: Config) -> int:
    """How many devices share a step."""
    return parallel.count_devices(config.run.devices)


# ---- training and judging


def learn(
    config: Config,
    part: Run,
    problem: Problem,
    net: Contender,
    step: StepFn,
    tx: optax.GradientTransformation,
    probe: Probe | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains all seeds; figures on test, and the logits `[seeds, n, tasks, classes]` there."""
    keys = run_keys(config.seed, config.seeds)
    state = jax.jit(jax.vmap(lambda params: init_state(params, tx)))(net.start)
    state = part.restore(state._replace(step=jnp.int32(0)))

    def validate(state: TrainState) -> Metrics:
        images, labels = problem.validation
        found: dict[str, Any] = {
            "accuracy": right(answers(net, state.params, images), labels).mean(axis=(1, 2))
        }
        if probe is not None:
            found["conflicts"] = probe(problem.stream, keys, state.params, state.step)
        return found

    state = part.train(
        step,
        problem.stream,
        keys,
        state,
        validate=clocked(part, validate),
        eval_every=config.eval_every,
        tasks=config.batch,
        devices=devices_of(config),
    )
    logits = answers(net, state.params, problem.test[0])
    seen, clock = part.metrics("validation"), part.metrics("time")
    ms = float(np.median(clock["ms_per_step"])) / config.seeds if clock else None
    figures = {
        **judged(logits, np.asarray(problem.test[1])),
        "validation": seeds_summary(seen["accuracy"][-1]),
        "conflicts": None if probe is None else seeds_summary(seen["conflicts"].mean(axis=0)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)) // config.seeds,
        "ms_per_step": ms,
    }
    say(f"{part.directory.name}: test accuracy {figures['mean']['mean']:.4f}")
    return figures, logits


def clocked(part: Run, validate: Callable[[TrainState], Metrics]) -> Callable[[Any], Metrics]:
    """`validate`, which also journals the milliseconds of a step since it was asked last.

    Neither compilation nor validation counts, nor what a resumed run did before it was stopped.
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
    """`(stream, keys, params, step) -> [seeds]`: how often two tasks' gradients conflict.

    That is the share of pairs of tasks, over the next `count` batches of each seed, whose
    gradients in the trunk have a negative inner product.
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


def judged(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of logits `[seeds, n, tasks, classes]` and labels `[n, tasks]`, over seeds.

    `accuracy`, one a task, and its `mean`; where there are two classes also the F1 score of class 1
    (0 where it neither occurs nor is predicted), one a task and the mean, and `ten_way`: how often
    the task with the largest difference of logits is one whose label is 1.
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
    """Summaries of values `[seeds, tasks]`, one a task."""
    return [seeds_summary(of_task) for of_task in values.T]


def base_rates(labels: np.ndarray) -> list[float]:
    """By task, the share of the most frequent of the labels `[n, tasks]`."""
    return [float(np.bincount(of_task).max() / len(labels)) for of_task in labels.T]


if __name__ == "__main__":
    cli.command_line(main, Config)
