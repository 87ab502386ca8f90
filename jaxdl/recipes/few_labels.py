"""Learning from few labels: one net, trained from different starts on a few examples per class.

A method has a start: the parameters `[seeds]` of `fresh`, `pretrained` or `meta_trained`. `learn`
then trains with every count of labels, every seed and every learning rate, in one compiled program.
It chooses learning rate and number of steps on validation examples. The experiment provides the
data, the net and the methods.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxdl import parallel
from jaxdl.data.episodes import few_shot
from jaxdl.data.epochs import epochs
from jaxdl.data.labels import check_labels
from jaxdl.data.pixels import white
from jaxdl.data.subsets import Cells, Table, by_class, cells, divided, subset_epochs
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, over_tasks, supervised
from jaxdl.losses import cross_entropy
from jaxdl.meta.maml import maml
from jaxdl.models.linen import without_stats
from jaxdl.runs.config import Seeds
from jaxdl.runs.run import Run
from jaxdl.train.evaluation import measure, measure_subsets
from jaxdl.train.steps import init_state, init_states, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Array, Key, Metrics, Model, Params, TrainState

Optimiser = Callable[[Any], optax.GradientTransformation]
"""Makes an optimiser of a learning rate. The rate is part of its state, so that the runs of one
program have different rates."""
Images = tuple[np.ndarray, np.ndarray]
"""uint8 or float `[n, h, w, channels]`, and labels `[n]` from 0."""

STARTS = 1_000_002
"""A number that is folded into a seed's key for its initial parameters, for all methods."""


class Problem(NamedTuple):
    """Training examples for subsets, images and labels of validation and test, and the source."""

    train: Table
    validation: tuple[Array, Array]
    test: tuple[Array, Array]
    source: Images


class Training(NamedTuple):
    """The training that all methods share.

    In the order of the fields: run keys `[seeds]`, examples per step, steps between validations,
    and the number of devices that share a step.
    """

    keys: Key
    batch: int
    eval_every: int
    devices: int


def training_of(random: Seeds, *, batch: int, eval_every: int = 1, devices: int) -> Training:
    """The training of the seeds of `random`, on `devices` devices (0 for all)."""
    keys = run_keys(random.seed, random.seeds)
    return Training(keys, batch, eval_every, parallel.count_devices(devices))


# ---- data


def problem_of(
    images: np.ndarray, labels: np.ndarray, source: Images, parts: tuple[int, int]
) -> Problem:
    """Divides each class: the first examples are for training, the next for validation, the rest
    for test. `parts` are the arguments of `data.subsets.divided`.

    Raises:
        InputError: if labels of the target or the source are not integers from 0, one per image.
    """
    labels = check_labels(labels, len(images))
    source = source[0], check_labels(source[1], len(source[0]))
    train, held_out, rest = divided(labels, *parts)
    pairs = [(jnp.asarray(images[rows]), jnp.asarray(labels[rows])) for rows in (held_out, rest)]
    return Problem(by_class(images[train], labels[train]), pairs[0], pairs[1], source)


def classes_of(problem: Problem) -> int:
    """The number of classes."""
    return len(problem.train.sizes)


def check_counts(counts: Sequence[int]) -> None:
    """Validates that counts of labels per class rise. 0 at the end stands for all.

    Raises:
        InputError: if not. The message names the field.
    """
    rising = list(counts[:-1] if counts and counts[-1] == 0 else counts)
    if len(counts) < 2 or rising[0] < 1 or rising != sorted(set(rising)):
        raise InputError(
            f"`counts={' '.join(map(str, counts))}`: give two rising numbers at least, the last may"
            " be 0 for all"
        )


def check_rates(rates: Sequence[float]) -> None:
    """Validates that there are learning rates, and that they are positive and finite.

    Raises:
        InputError: if not. The message names the field.
    """
    if not rates or min(rates) <= 0 or not np.isfinite(rates).all():
        raise InputError(f"`rates={' '.join(map(str, rates))}`: give learning rates above 0")


def check_sizes(problem: Problem, counts: Sequence[int], data: str) -> None:
    """Validates that every class of the data set has enough training examples for all counts.

    Raises:
        InputError: if not. The message names the field.
    """
    least, most = int(problem.train.sizes.min()), max(counts)
    if most > least:
        raise InputError(
            f"`counts={most}`: a class of {data} has only {least} training examples. Choose smaller"
            " counts"
        )


def seen(image: Any) -> Array:
    """The input of a net: uint8 images divided by 255, float images unchanged."""
    return jnp.asarray(image, jnp.float32) / white(image)


def plain(key: Key, image: Array) -> Array:
    """The input of a net in training, without augmentation."""
    del key
    return seen(image)


# ---- where nets start


def fresh(problem: Problem, model: Model, keys: Key) -> Params:
    """Random parameters `[seeds]`, the same for all methods."""
    image = seen(problem.train.x[:1])
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, STARTS)
    return lax.map(lambda key: model.init(key, image), keys)


def pretrained(run: Run, source: Images, model: Model, training: Training, *, lr: float) -> Params:
    """Parameters `[seeds]` of a classifier of all source classes, trained by Adam."""
    images, labels = source
    axis = parallel.axis_name(training.devices)
    tx, keys = optax.adam(lr), training.keys
    state = run.restore(init_states(lambda key: model.init(key, seen(images[:1])), keys, tx))
    step = make_step(over_devices(supervised(model, cross_entropy), axis), tx)
    stream = epochs(images, labels, batch=training.batch, transform=plain)
    options: dict[str, Any] = {"tasks": training.batch, "devices": training.devices}
    return run.train(step, stream, keys, state, **options).params


def meta_trained(
    run: Run,
    problem: Problem,
    model: Model,
    training: Training,
    *,
    tasks: int,
    inner_lr: float,
    lr: float,
) -> Params:
    """Parameters `[seeds]` from which one gradient step learns source classes: MAML.

    A task has as many classes as the target, with 1 support and 3 query examples per class. The
    outer optimiser is Adam with learning rate `lr`.
    """
    images, labels = problem.source
    tx, keys = optax.adam(lr), training.keys
    learner = maml(model, cross_entropy, tx=optax.sgd(inner_lr), steps=1)
    axis = parallel.axis_name(training.devices)
    chunk = 1 if jax.default_backend() == "cpu" else None
    grad = over_tasks(learner.grad, chunk=chunk, axis_name=axis)
    sample = few_shot(images, labels, ways=classes_of(problem), shots=1, queries=3)
    stream = task_stream(sample, tasks)
    state = run.restore(init_states(lambda key: learner.init(key, seen(images[:1])), keys, tx))
    options: dict[str, Any] = {"tasks": tasks, "devices": training.devices}
    return run.train(make_step(grad, tx), stream, keys, state, **options).params


# ---- training on subsets


def adamw(*, weight_decay: float = 0.0) -> Optimiser:
    """Adam with decoupled weight decay.

    Each step also subtracts `weight_decay` * learning rate * weights.
    """
    with_rate = optax.inject_hyperparams(optax.adamw)
    return lambda rate: with_rate(learning_rate=rate, weight_decay=weight_decay)


def fit(
    run: Run,
    problem: Problem,
    model: Model,
    runs: Cells,
    start: Params,
    training: Training,
    *,
    optimiser: Optimiser | None = None,
    transform: Callable[[Key, Array], Array] = plain,
    validate: Callable[[TrainState], Metrics] | None = None,
) -> Params:
    """Trains all cells from the parameters `[seeds]`. Returns the last parameters `[cells]`."""
    make = optimiser or adamw()
    params = jax.tree.map(lambda leaf: leaf[runs.seeds], start)
    state = jax.vmap(lambda each, rate: init_state(each, make(rate)))(params, runs.rates)
    state = run.restore(state._replace(step=jnp.int32(0)))
    axis = parallel.axis_name(training.devices)
    step = make_step(over_devices(supervised(model, cross_entropy), axis), make(0.0))
    stream = subset_epochs(
        problem.train,
        batch=training.batch,
        transform=transform,
        runs=runs.keys,
        subsets=runs.subsets,
    )
    return run.train(
        step,
        stream,
        runs.keys,
        state,
        validate=validate,
        eval_every=training.eval_every,
        best="accuracy",
        devices=training.devices,
    ).params


def learn(
    run: Run,
    problem: Problem,
    model: Model,
    start: Params,
    training: Training,
    *,
    counts: Sequence[int],
    rates: Sequence[float],
    optimiser: Optimiser | None = None,
    transform: Callable[[Key, Array], Array] = plain,
) -> dict[str, Any]:
    """Accuracies `[counts, seeds]` of one method, and the choices made on validation examples.

    Validation chooses the number of steps of each run. It chooses the learning rate of each count
    by the mean accuracy over seeds. Test examples are not used for a choice.

    Returns:
        `train` (on the run's own training examples), `validation` and `test`, all
        `[counts, seeds]`; `rates`, one per count; `steps`, `[counts, seeds]`.
    """
    seeds = len(training.keys)
    runs = cells(training.keys, counts, rates)
    options: dict[str, Any] = {"devices": training.devices}
    judge = measure(without_stats(model), cross_entropy, seen, **options)
    learnt = measure_subsets(without_stats(model), cross_entropy, seen, **options)

    def validate(state: TrainState) -> Metrics:
        return judge(state.params, {}, *problem.validation)

    options = {"optimiser": optimiser, "transform": transform}
    last = fit(run, problem, model, runs, start, training, validate=validate, **options)
    params, steps = run.best(last)
    shape = len(rates), len(counts), seeds
    validation = np.asarray(judge(params, {}, *problem.validation)["accuracy"]).reshape(shape)
    best = validation.mean(axis=2).argmax(axis=0)
    chosen = np.arange(validation.size).reshape(shape)[best, np.arange(len(counts))]
    kept, subsets = jax.tree.map(lambda leaf: leaf[chosen.ravel()], (params, runs.subsets))
    accuracies: dict[str, Any] = {
        "train": learnt(kept, {}, problem.train, subsets)["accuracy"],
        "validation": validation.ravel()[chosen],
        "test": judge(kept, {}, *problem.test)["accuracy"],
    }
    return {
        **{name: np.reshape(each, chosen.shape).tolist() for name, each in accuracies.items()},
        "rates": [rates[i] for i in best],
        "steps": steps[chosen].tolist(),
    }
