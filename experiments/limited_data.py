"""Learning from few labels: from scratch, augmented, by transfer, from a MAML initialisation.

The same net is trained in four ways on 1, 5, 20, 100 or all labelled examples a class. Transfer
starts from a classifier of other images (Omniglot for MNIST, CIFAR-100 for CIFAR-10), MAML
(arXiv:1703.03400) from an initialisation meta-trained on the same ones; all end in the same
training by Adam. Its step size, by method and count, and its number of steps, by run, are those
that are best on labelled validation examples held out from the training split. There are more of
them than the small counts have; all four methods have that help. A second part shows under- and
overfitting of dense nets. The counts, step sizes and seeds of a method are the runs of one
compiled program.

Command: scripts/run limited_data [--data omniglot]
Runtime: 39 minutes on 2 CPU cores that other work shared, of them 98 s of compilation
Result: MNIST, 3 seeds, test accuracy in % with 1, 5, 20, 100, all labelled a class: from scratch
    49.1 72.0 87.4 94.7 97.5; augmented 60.2 89.0 95.2 96.8 97.3; transfer 46.4 76.8 90.0 94.8 97.4;
    MAML 55.5 81.9 92.4 96.3 98.1
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from tyro.conf import OmitArgPrefixes

from experiments._limited_data import METHODS, draw_accuracy, draw_gap, finding, report
from jaxdl import cli, parallel
from jaxdl.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.data.augment import flip, translate
from jaxdl.data.digits import all_drawings
from jaxdl.data.episodes import few_shot
from jaxdl.data.epochs import epochs
from jaxdl.data.images import few_shot_arrays, image_arrays
from jaxdl.data.subsets import ALL, Cells, Table, by_class, cells, divided, size, subset_epochs
from jaxdl.data.warp import affine
from jaxdl.errors import InputError
from jaxdl.evaluation import measure, measure_subsets
from jaxdl.grads import over_devices, over_tasks, supervised
from jaxdl.losses import cross_entropy
from jaxdl.meta.maml import maml
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.runs import Run, RunFlags, open_run, say
from jaxdl.train import init_state, init_states, make_step, run_keys, task_stream
from jaxdl.types import Array, Key, Metrics, Model, Params, TrainState

COUNTS = {
    "mnist": (1, 5, 20, 100, 0),
    "cifar10": (1, 5, 20, 100, 0),
    "omniglot": (1, 5, 10, 0),
    "digits": (1, 5, 20, 0),
}
HEAD = "Dense_2"
"""The name of LeNet's last layer, which transfer starts anew."""
STARTS = 1_000_002
"""Folded into a seed's key for its first parameters, the same for all methods."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["mnist", "omniglot", "cifar10", "digits"] = "mnist"
    """What is to be learnt; the source of transfer and MAML is Omniglot, other characters of
    Omniglot, CIFAR-100, or, for scikit-learn's digits 0 to 4, the digits 5 to 9."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    counts: tuple[int, ...] = ()
    """Labelled examples a class, rising, 0 for all at the end; by default 1 5 20 100 0 for MNIST
    and CIFAR-10."""
    steps: int = 400
    """Training steps of each run of each method."""
    batch: int = 64
    """Examples a step."""
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003)
    """Step sizes of Adam to choose from."""
    weight_decay: float = 0.1
    """Of the augmented method: each step takes the learning rate times this of the weights away."""
    dropout: float = 0.3
    """Of the augmented method: rate after both hidden dense layers."""
    source_steps: int = 3000
    """Steps in which the net learns to classify the source, for transfer."""
    meta_steps: int = 2000
    """Meta-training steps on the source, for MAML."""
    tasks: int = 4
    """Tasks a meta-training step, of one example given and three asked a class."""
    inner_lr: float = 0.4
    """Size of the one inner step of MAML."""
    lr: float = 0.003
    """Adam's step size on the source, in meta-training too."""
    widths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """Hidden units of the dense nets, rising."""
    width_steps: int = 2000
    """Training steps of the dense nets."""
    width_lr: float = 0.001
    """Adam's step size for them."""
    eval_every: int = 100
    """Steps between validations, a multiple of `log_every`."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """How many seeds, from `seed` upward: each gets other examples and another initialisation."""
    run: OmitArgPrefixes[RunFlags] = dataclasses.field(default_factory=RunFlags)


class Problem(NamedTuple):
    """Training examples to take subsets of, two pairs of images and labels to judge on, and the
    labelled images of the source."""

    train: Table
    validation: tuple[Array, Array]
    test: tuple[Array, Array]
    source: tuple[np.ndarray, np.ndarray]


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    with open_run("limited_data", config, label=config.data) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "steps", "batch", "source_steps", "meta_steps", "tasks")
    at_least(config, 1, "width_steps", "eval_every", "seeds")
    at_least(config, 0, "weight_decay")
    at_least(config, 0, "dropout", most=0.999)
    at_least(config, 0, "seed")
    above_zero(config, "inner_lr", "lr", "width_lr")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)
    counts = counts_of(config)
    rising = list(counts[:-1] if counts[-1] == 0 else counts)
    if len(counts) < 2 or min(rising) < 1 or rising != sorted(set(rising)):
        raise InputError(
            f"--counts {' '.join(map(str, counts))}: give two rising numbers at least, the last may"
            " be 0 for all"
        )
    if not config.rates or min(config.rates) <= 0 or not np.isfinite(config.rates).all():
        raise InputError(f"--rates {config.rates}: give step sizes above 0")
    if not config.widths or min(config.widths) < 1:
        raise InputError(f"--widths {config.widths}: give numbers of hidden units above 0")


def counts_of(config: Config) -> tuple[int, ...]:
    """Labelled examples a class; 0 stands for all."""
    return config.counts or COUNTS[config.data]


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Both trainings on the source, the four methods, the dense nets, and the pictures."""
    problem = load(config)
    given = [float(size(problem.train, n or ALL)) / classes_of(problem) for n in counts_of(config)]
    starts = {
        "scratch": fresh(config, problem, net(classes_of(problem))),
        "transfer": pretrained(config, run.part("source", config.source_steps), problem),
        "maml": meta_trained(config, run.part("meta", config.meta_steps), problem),
    }
    starts["augmented"] = starts["scratch"]
    methods = {}
    for name in METHODS:
        methods[name] = learn(config, run.part(name), problem, name, starts[name])
        say(f"{METHODS[name]}: test accuracy {np.mean(methods[name]['test'], axis=1).round(4)}")
    result = {
        "methods": methods,
        "sizes": sizes(config, run, problem),
        "counts": counts_of(config),
        "examples": given,
        "images": {name: len(getattr(problem, name)[1]) for name in ("validation", "test")},
        "config": dataclasses.asdict(config),
    }
    result["finding"] = finding(result)
    run.picture("accuracy", partial(draw_accuracy, result), size=(6.5, 4.5))
    run.picture("gap", partial(draw_gap, result), size=(9, 4.2))
    return run.finish(result)


# ---- data


def load(config: Config) -> Problem:
    """The examples of a configuration, on the device.

    Raises:
        InputError: if a class has fewer training examples than a count asks for.
    """
    source: tuple[np.ndarray, np.ndarray]
    if config.data == "digits":
        images, digits = all_drawings()
        images = np.repeat(np.repeat(images, 3, axis=1), 3, axis=2)[..., None]
        source = images[digits >= 5], digits[digits >= 5] - 5
        problem = problem_of(images[digits < 5], digits[digits < 5], source, (100, 30))
    elif config.data == "omniglot":
        data = few_shot_arrays("omniglot", "test", data_dir=config.data_dir)
        # Every fourth character: a net with a logit for each is still one that MAML can train.
        chosen = data.labels % 4 == 0
        source = few_shot_arrays("omniglot", "train", data_dir=config.data_dir)[:2]
        problem = problem_of(data.images[chosen], data.labels[chosen] // 4, source, (15, 2))
    else:
        train, test = (
            image_arrays(config.data, part, data_dir=config.data_dir) for part in ("train", "test")
        )
        source = (
            few_shot_arrays("omniglot", "train", data_dir=config.data_dir)[:2]
            if config.data == "mnist"
            else image_arrays("cifar100", "train", data_dir=config.data_dir)[:2]
        )
        problem = problem_of(train.images, train.labels, source, (-200, 200))
        problem = problem._replace(test=(jnp.asarray(test.images), jnp.asarray(test.labels)))
    least, most = int(problem.train.sizes.min()), max(counts_of(config))
    if most > least:
        raise InputError(
            f"--counts {most}: a class of {config.data} has only {least} training examples"
        )
    return problem


def problem_of(
    images: np.ndarray, labels: np.ndarray, source: Any, parts: tuple[int, int]
) -> Problem:
    """Of each class the first examples for training, the next for validation, the rest for test."""
    labels = labels.astype(np.int32)
    train, held_out, rest = divided(labels, *parts)
    pairs = [(jnp.asarray(images[rows]), jnp.asarray(labels[rows])) for rows in (held_out, rest)]
    return Problem(by_class(images[train], labels[train]), pairs[0], pairs[1], source)


def classes_of(problem: Problem) -> int:
    """The number of classes."""
    return len(problem.train.sizes)


def seen(image: Any) -> Array:
    """Bytes as a net sees them."""
    return jnp.asarray(image, jnp.float32) / 255


def plain(key: Key, image: Array) -> Array:
    """What a net sees in training without augmentation."""
    del key
    return seen(image)


def augmentation(config: Config) -> Callable[[Key, Array], Array]:
    """Photographs mirrored and moved; characters turned, zoomed and moved."""

    def photograph(key: Key, image: Array) -> Array:
        flip_key, move_key = jax.random.split(key)
        return seen(translate(move_key, flip(flip_key, image), pixels=4))

    def character(key: Key, image: Array) -> Array:
        return seen(affine(key, image, degrees=15, zoom=0.1, pixels=2))

    return photograph if config.data == "cifar10" else character


# ---- nets and where they start


def net(classes: int, dropout: float = 0.0) -> Model:
    """LeNet, which has no batch norm: no prediction depends on another example."""
    return lenet(classes, dropout=dropout, torch_init=False)


def fresh(config: Config, problem: Problem, model: Model) -> Params:
    """Random parameters `[seeds]`."""
    image = seen(problem.train.x[:1])
    keys = run_keys(config.seed, config.seeds)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, STARTS)
    return lax.map(lambda key: model.init(key, image), keys)


def pretrained(config: Config, run: Run, problem: Problem) -> Params:
    """Parameters `[seeds]` of a classifier of all source classes, with a new head."""
    images, labels = problem.source
    model = net(int(labels.max()) + 1)
    axis = parallel.axis_name(devices_of(config))
    tx, keys = optax.adam(config.lr), run_keys(config.seed, config.seeds)
    state = run.restore(init_states(lambda key: model.init(key, seen(images[:1])), keys, tx))
    step = make_step(over_devices(supervised(model, cross_entropy), axis), tx)
    stream = epochs(images, labels, batch=config.batch, transform=plain)
    found = run.trained(step, stream, keys, state, tasks=config.batch, devices=devices_of(config))
    head = fresh(config, problem, net(classes_of(problem)))[HEAD]
    return {**found.params, HEAD: head}


def meta_trained(config: Config, run: Run, problem: Problem) -> Params:
    """Parameters `[seeds]` from which one gradient step learns as many source classes as asked."""
    images, labels = problem.source
    ways = classes_of(problem)
    tx, keys = optax.adam(config.lr), run_keys(config.seed, config.seeds)
    learner = maml(net(ways), cross_entropy, tx=optax.sgd(config.inner_lr), steps=1)
    axis = parallel.axis_name(devices_of(config))
    chunk = 1 if jax.default_backend() == "cpu" else None
    grad = over_devices(over_tasks(learner.grad, chunk=chunk, axis_name=axis), axis)
    stream = task_stream(few_shot(images, labels, ways=ways, shots=1, queries=3), config.tasks)
    state = run.restore(init_states(lambda key: learner.init(key, seen(images[:1])), keys, tx))
    step, devices = make_step(grad, tx), devices_of(config)
    return run.trained(step, stream, keys, state, tasks=config.tasks, devices=devices).params


def devices_of(config: Config) -> int:
    """How many devices share a step."""
    return parallel.count_devices(config.run.devices)


# ---- the runs


def fit(
    config: Config,
    run: Run,
    problem: Problem,
    model: Model,
    runs: Cells,
    start: Params,
    *,
    transform: Callable[[Key, Array], Array] = plain,
    weight_decay: float = 0.0,
    validate: Callable[[TrainState], Metrics] | None = None,
) -> Params:
    """Trains all cells from the parameters `[seeds]`; returns the last ones `[cells]`."""

    def optimiser(rate: Any) -> optax.GradientTransformation:
        # The rate is part of the state, so that it differs between the runs of one program.
        adamw = optax.inject_hyperparams(optax.adamw)
        return adamw(learning_rate=rate, weight_decay=weight_decay)

    params = jax.tree.map(lambda leaf: leaf[runs.seeds], start)
    state = jax.vmap(lambda each, rate: init_state(each, optimiser(rate)))(params, runs.rates)
    state = run.restore(state._replace(step=jnp.int32(0)))
    axis = parallel.axis_name(devices_of(config))
    step = make_step(over_devices(supervised(model, cross_entropy), axis), optimiser(0.0))
    stream = subset_epochs(
        problem.train,
        batch=config.batch,
        transform=transform,
        runs=runs.keys,
        subsets=runs.subsets,
    )
    return run.trained(
        step,
        stream,
        runs.keys,
        state,
        validate=validate,
        eval_every=config.eval_every,
        best="accuracy",
        tasks=config.batch,
        devices=devices_of(config),
    ).params


def learn(config: Config, run: Run, problem: Problem, method: str, start: Params) -> dict[str, Any]:
    """Accuracies `[counts, seeds]` of one method, with what was chosen on validation examples."""
    counts, rates = counts_of(config), config.rates
    regular = method == "augmented"
    model = net(classes_of(problem), config.dropout if regular else 0.0)
    runs = cells(run_keys(config.seed, config.seeds), counts, rates)
    judge = measure(without_stats(model), cross_entropy, seen)
    learnt = measure_subsets(without_stats(model), cross_entropy, seen)

    def validate(state: TrainState) -> Metrics:
        return judge(state.params, {}, *problem.validation)

    last = fit(
        config,
        run,
        problem,
        model,
        runs,
        start,
        transform=augmentation(config) if regular else plain,
        weight_decay=config.weight_decay if regular else 0.0,
        validate=validate,
    )
    params, steps = run.best(last)
    shape = len(rates), len(counts), config.seeds
    validation = np.asarray(judge(params, {}, *problem.validation)["accuracy"]).reshape(shape)
    best = validation.mean(axis=2).argmax(axis=0)
    chosen = np.arange(validation.size).reshape(shape)[best, np.arange(len(counts))]
    kept, subsets = jax.tree.map(lambda leaf: leaf[chosen.ravel()], (params, runs.subsets))
    accuracies = {
        "train": learnt(kept, {}, problem.train, subsets)["accuracy"],
        "validation": validation.ravel()[chosen],
        "test": judge(kept, {}, *problem.test)["accuracy"],
    }
    return {
        **{name: np.reshape(each, chosen.shape).tolist() for name, each in accuracies.items()},
        "rates": [rates[i] for i in best],
        "steps": steps[chosen].tolist(),
    }


def sizes(config: Config, run: Run, problem: Problem) -> dict[str, Any]:
    """Accuracy in training and test of dense nets from scratch, `[counts, widths, seeds]`, after
    the last step: nothing is chosen."""
    counts = counts_of(config)[1 if len(counts_of(config)) > 2 else 0], counts_of(config)[-1]
    found: dict[str, list[Any]] = {"train": [], "test": []}
    for width in config.widths:
        model = mlp((width, classes_of(problem)))
        runs = cells(run_keys(config.seed, config.seeds), counts, (config.width_lr,))
        part = run.part(f"width-{width}", config.width_steps)
        params = fit(config, part, problem, model, runs, fresh(config, problem, model))
        judge = measure(without_stats(model), cross_entropy, seen)
        learnt = measure_subsets(without_stats(model), cross_entropy, seen)
        found["train"].append(learnt(params, {}, problem.train, runs.subsets)["accuracy"])
        found["test"].append(judge(params, {}, *problem.test)["accuracy"])
    shape = len(config.widths), len(counts), config.seeds
    return {
        "counts": counts,
        **{
            name: np.reshape(np.stack(each), shape).swapaxes(0, 1).tolist()
            for name, each in found.items()
        },
    }


if __name__ == "__main__":
    cli.command_line(main, Config)
