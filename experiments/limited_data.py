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
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reports.limited_data import METHODS, draw_gap, finding, report
from jaxdl import parallel
from jaxdl.data.augment import flip, translate
from jaxdl.data.pixels import white
from jaxdl.data.sets.digits import enlarged_drawings
from jaxdl.data.sets.images import few_shot_arrays, image_arrays
from jaxdl.data.subsets import ALL, cells, size
from jaxdl.data.warp import affine
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.optim.transfer import with_new_head
from jaxdl.recipes import few_labels
from jaxdl.recipes.few_labels import Problem, Training, classes_of, plain, problem_of, seen
from jaxdl.report import pictures
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run, say
from jaxdl.runs.weights import from_weights
from jaxdl.train.evaluation import measure, measure_subsets
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Model, Params

COUNTS = {
    "mnist": (1, 5, 20, 100, 0),
    "cifar10": (1, 5, 20, 100, 0),
    "omniglot": (1, 5, 10, 0),
    "digits": (1, 5, 20, 0),
}
HEAD = "Dense_2"
"""The name of LeNet's last layer, which transfer starts anew."""


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
    init_from: Path | None = None
    """Transfer: in place of a training on the source, take the trunk of these weights, a .npz of
    weights, or of a run, of whose seeds each starts one here. The head is a new one."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: a dense layer for other images, say."""
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
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


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
    few_labels.check_counts(counts_of(config))
    few_labels.check_rates(config.rates)
    if not config.widths or min(config.widths) < 1:
        raise InputError(f"--widths {config.widths}: give numbers of hidden units above 0")


def counts_of(config: Config) -> tuple[int, ...]:
    """Labelled examples a class; 0 stands for all."""
    return config.counts or COUNTS[config.data]


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Both trainings on the source, the four methods, the dense nets, and the pictures."""
    problem = load(config)
    given = [float(size(problem.train, n or ALL)) / classes_of(problem) for n in counts_of(config)]
    starts = starts_of(config, run, problem)
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
    run.picture("accuracy", partial(pictures.accuracy_by_count, result, METHODS), size=(6.5, 4.5))
    run.picture("gap", partial(draw_gap, result), size=(9, 4.2))
    return run.finish(result)


# ---- data


def load(config: Config) -> Problem:
    """The examples of a configuration, on the device.

    Raises:
        InputError: if a class has fewer training examples than a count asks for.
    """
    source: few_labels.Images
    if config.data == "digits":
        images, digits = enlarged_drawings()
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
    few_labels.check_sizes(problem, counts_of(config), config.data)
    return problem


def augmentation(config: Config) -> Callable[[Key, Array], Array]:
    """Photographs mirrored and moved; characters turned, zoomed and moved."""

    def photograph(key: Key, image: Array) -> Array:
        flip_key, move_key = jax.random.split(key)
        return seen(translate(move_key, flip(flip_key, image), pixels=4))

    def character(key: Key, image: Array) -> Array:
        return affine(key, image, degrees=15, zoom=0.1, pixels=2) / white(image)

    return photograph if config.data == "cifar10" else character


# ---- nets and where they start


def net(classes: int, dropout: float = 0.0) -> Model:
    """LeNet, which has no batch norm: no prediction depends on another example."""
    return lenet(classes, dropout=dropout, torch_init=False)


def starts_of(config: Config, run: Run, problem: Problem) -> dict[str, Params]:
    """Parameters `[seeds]` from which each method starts; two of them need a training."""
    training, model = training_of(config), net(classes_of(problem))
    start = few_labels.fresh(problem, model, training.keys)
    if config.init_from is None:
        part = run.part("source", config.source_steps)
        classifier = net(int(problem.source[1].max()) + 1)
        source = few_labels.pretrained(part, problem.source, classifier, training, lr=config.lr)
        transferred = with_new_head(source, start, head=HEAD)
    else:
        transferred, _ = from_weights(config.init_from, (HEAD, *config.init_except), start)
    meta = few_labels.meta_trained(
        run.part("meta", config.meta_steps),
        problem,
        model,
        training,
        tasks=config.tasks,
        inner_lr=config.inner_lr,
        lr=config.lr,
    )
    return {"scratch": start, "augmented": start, "transfer": transferred, "maml": meta}


def training_of(config: Config) -> Training:
    """What all trainings share."""
    devices = parallel.count_devices(config.run.devices)
    keys = run_keys(config.seed, config.seeds)
    return Training(keys, config.batch, config.eval_every, devices)


# ---- the runs


def learn(config: Config, run: Run, problem: Problem, method: str, start: Params) -> dict[str, Any]:
    """Accuracies `[counts, seeds]` of one method, with what was chosen on validation examples."""
    regular = method == "augmented"
    model = net(classes_of(problem), config.dropout if regular else 0.0)
    return few_labels.learn(
        run,
        problem,
        model,
        start,
        training_of(config),
        counts=counts_of(config),
        rates=config.rates,
        optimiser=few_labels.adamw(weight_decay=config.weight_decay if regular else 0.0),
        transform=augmentation(config) if regular else plain,
    )


def sizes(config: Config, run: Run, problem: Problem) -> dict[str, Any]:
    """Accuracy in training and test of dense nets from scratch, `[counts, widths, seeds]`, after
    the last step: nothing is chosen."""
    counts = counts_of(config)[1 if len(counts_of(config)) > 2 else 0], counts_of(config)[-1]
    training = training_of(config)
    found: dict[str, list[Any]] = {"train": [], "test": []}
    for width in config.widths:
        model = mlp((width, classes_of(problem)))
        runs = cells(training.keys, counts, (config.width_lr,))
        part = run.part(f"width-{width}", config.width_steps)
        start = few_labels.fresh(problem, model, training.keys)
        params = few_labels.fit(part, problem, model, runs, start, training)
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
