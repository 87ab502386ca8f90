"""Transfer learning: a probe, fine-tuning, gradual unfreezing and MAML, by examples a class.

A net learns to classify a source: the digits 0 to 4, Omniglot's background alphabets, or twelve
superclasses of CIFAR-100. The target are classes that it never saw: the digits 5 to 9, characters
of the evaluation alphabets, or four other superclasses. From 1 example a class to all, a linear
probe (the trunk is frozen), full fine-tuning, gradual unfreezing (arXiv:1801.06146: the head, then
every few steps one layer more) and training from scratch stand beside one another, and fine-tuning
from an initialisation that MAML (arXiv:1703.03400) has found on the source. They differ in where
they start and in the step at which each layer begins to move: numbers, so that one compiled program
does them all. Step size, by method and count, and number of steps, by run, are those that are best
on validation examples; there are more of them than the small counts have. Test images decide
nothing.

Command: scripts/run transfer [--data omniglot]
Runtime: 33 minutes on 2 CPU cores that other work shared
Result: MNIST, 3 seeds, test accuracy in % with 1, 5, 20, 100, all labelled a class: from scratch
    54.3 78.1 90.5 95.9 98.4; probe 62.4 72.8 82.6 88.1 90.1; full 63.2 82.0 92.0 96.1 98.6; gradual
    66.4 82.7 92.2 96.2 98.6; MAML 66.1 82.8 92.2 96.7 98.8
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from experiments.reports.transfer import METHODS, finding, report
from jaxdl import parallel
from jaxdl.data.sets.digits import enlarged_drawings
from jaxdl.data.sets.images import few_shot_arrays, image_arrays
from jaxdl.data.subsets import ALL, divided, size
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.optim.transfer import NEVER, unfreezing, with_new_head
from jaxdl.recipes import few_labels
from jaxdl.recipes.few_labels import (
    Images,
    Optimiser,
    Problem,
    Training,
    classes_of,
    problem_of,
    seen,
)
from jaxdl.report import pictures
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run, say
from jaxdl.runs.weights import from_weights
from jaxdl.train.evaluation import measure
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Model, Params

COUNTS = {
    "mnist": (1, 5, 20, 100, 0),
    "omniglot": (1, 5, 10, 0),
    "cifar100": (1, 5, 20, 100, 0),
    "digits": (1, 5, 20, 0),
}
LAYERS = ("Dense_2", "Dense_1", "Dense_0", "Conv_1", "Conv_0")
"""LeNet's layers from the top, as gradual unfreezing takes them; the first is the head."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["mnist", "omniglot", "cifar100", "digits"] = "mnist"
    """Source and target: digits 0 to 4 and 5 to 9 of MNIST, or of scikit-learn, which needs no
    download; Omniglot's background alphabets, and 110 characters of the others; twelve superclasses
    of CIFAR-100, and four others."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    counts: tuple[int, ...] = ()
    """Labelled examples a class, rising, 0 for all at the end; by default 1 5 20 100 0 for MNIST
    and CIFAR-100."""
    steps: int = 400
    """Training steps of each run of each method."""
    batch: int = 64
    """Examples a step."""
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Step sizes of Adam to choose from."""
    stage: int = 40
    """Steps after which gradual unfreezing takes one layer more."""
    init_from: Path | None = None
    """In place of a training on the source, take the trunk of these weights, a .npz of
    weights, or of a run, of whose seeds each starts one here. The head is a new one."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: a dense layer for other images, say."""
    source_steps: int = 3000
    """Steps in which the net learns to classify the source."""
    meta_steps: int = 2000
    """Meta-training steps on the source, for MAML."""
    tasks: int = 4
    """Tasks a meta-training step, of one example given and three asked a class."""
    inner_lr: float = 0.4
    """Size of the one inner step of MAML."""
    lr: float = 0.003
    """Adam's step size on the source, in meta-training too."""
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
    with open_run("transfer", config, label=config.data) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "steps", "batch", "stage", "source_steps", "meta_steps", "tasks")
    at_least(config, 1, "eval_every", "seeds")
    at_least(config, 0, "seed")
    above_zero(config, "inner_lr", "lr")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)
    few_labels.check_counts(counts_of(config))
    few_labels.check_rates(config.rates)


def counts_of(config: Config) -> tuple[int, ...]:
    """Labelled examples a class; 0 stands for all."""
    return config.counts or COUNTS[config.data]


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Both trainings on the source, the five methods, and the picture."""
    problem, source_test = load(config)
    devices = parallel.count_devices(config.run.devices)
    keys = run_keys(config.seed, config.seeds)
    training = Training(keys, config.batch, config.eval_every, devices)
    model, counts = net(classes_of(problem)), counts_of(config)
    start = few_labels.fresh(problem, model, keys)
    trained, source = transferred(config, run, problem, start, training, source_test)
    meta = few_labels.meta_trained(
        run.part("meta", config.meta_steps),
        problem,
        model,
        training,
        tasks=config.tasks,
        inner_lr=config.inner_lr,
        lr=config.lr,
    )
    origins = {"scratch": start, "maml": meta}
    methods = {}
    for name in METHODS:
        methods[name] = few_labels.learn(
            run.part(name),
            problem,
            model,
            origins.get(name, trained),
            training,
            counts=counts,
            rates=config.rates,
            optimiser=optimiser(starts_of(name, config.stage)),
        )
        say(f"{METHODS[name]}: test accuracy {np.mean(methods[name]['test'], axis=1).round(4)}")
    result: dict[str, Any] = {
        "methods": methods,
        "source": source,
        "counts": counts,
        "examples": [float(size(problem.train, n or ALL)) / classes_of(problem) for n in counts],
        "classes": {"source": int(problem.source[1].max()) + 1, "target": classes_of(problem)},
        "images": {
            **{name: len(getattr(problem, name)[1]) for name in ("source", "validation", "test")},
            "source_test": len(source_test[1]),
        },
        "config": dataclasses.asdict(config),
    }
    result["finding"] = finding(result)
    run.picture("accuracy", partial(pictures.accuracy_by_count, result, METHODS), size=(6.5, 4.5))
    return run.finish(result)


# ---- data


def load(config: Config) -> tuple[Problem, Images]:
    """The target's examples, on the device, with the source's; and images of the source's classes
    on which nothing is trained.

    Raises:
        InputError: if a class has fewer training examples than a count asks for.
    """
    folder = config.data_dir
    if config.data == "mnist":
        train, test = (image_arrays("mnist", part, data_dir=folder) for part in ("train", "test"))
        source, source_test = (digits_below_five(*part[:2]) for part in (train, test))
        late = train.labels >= 5
        problem = problem_of(train.images[late], train.labels[late] - 5, source, (-200, 200))
        late = test.labels >= 5
        judged = jnp.asarray(test.images[late]), jnp.asarray(test.labels[late] - 5)
        problem = problem._replace(test=judged)
    elif config.data == "digits":
        images, digits = enlarged_drawings()
        source, source_test = held_out(*digits_below_five(images, digits), 30)
        late = digits >= 5
        problem = problem_of(images[late], digits[late] - 5, source, (100, 30))
    else:
        omniglot = config.data == "omniglot"
        name: Literal["omniglot", "fc100"] = "omniglot" if omniglot else "fc100"
        options: dict[str, Any] = {"omniglot_split": "alphabets", "data_dir": folder}
        source, source_test = held_out(
            *few_shot_arrays(name, "train", **options)[:2], 2 if omniglot else 60
        )
        images, labels = few_shot_arrays(name, "test", **options)[:2]
        if omniglot:
            # Every sixth character: a net with a logit for each is still one that MAML can train.
            images, labels = images[labels % 6 == 0], labels[labels % 6 == 0] // 6
        problem = problem_of(images, labels, source, (15, 2) if omniglot else (400, 50))
    few_labels.check_sizes(problem, counts_of(config), config.data)
    return problem, source_test


def digits_below_five(images: np.ndarray, digits: np.ndarray) -> Images:
    """Those that the source consists of."""
    return images[digits < 5], digits[digits < 5]


def held_out(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[Images, Images]:
    """All images but the last `count` of each class, and those."""
    first, last, _ = divided(labels, -count, count)
    return (images[first], labels[first]), (images[last], labels[last])


# ---- nets, where they start, and what moves


def net(classes: int) -> Model:
    """LeNet, which has no batch norm: no prediction depends on another example."""
    return lenet(classes, torch_init=False)


def transferred(
    config: Config,
    run: Run,
    problem: Problem,
    start: Params,
    training: Training,
    source_test: Images,
) -> tuple[Params, Array | None]:
    """The trunk of a classifier of the source under the head of `start`, `[seeds]`; and how many of
    its other images the classifier is right on, `[seeds]`, if there is one and no `init_from`."""
    if config.init_from is not None:
        return from_weights(config.init_from, (LAYERS[0], *config.init_except), start)[0], None
    model = net(int(problem.source[1].max()) + 1)
    part = run.part("source", config.source_steps)
    source = few_labels.pretrained(part, problem.source, model, training, lr=config.lr)
    judge = measure(without_stats(model), cross_entropy, seen)
    accuracy = judge(source, {}, *map(jnp.asarray, source_test))["accuracy"]
    return with_new_head(source, start, head=LAYERS[0]), accuracy


def starts_of(method: str, stage: int) -> np.ndarray:
    """The step at which each of `LAYERS` begins to move, `[layers]`."""
    depth = np.arange(len(LAYERS))
    if method == "probe":
        return np.where(depth == 0, 0, NEVER)
    return depth * stage if method == "gradual" else 0 * depth


def optimiser(starts: np.ndarray) -> Optimiser:
    """Adam, which begins with each layer at its step; both are part of the state."""
    adam = few_labels.adamw()
    return lambda rate: unfreezing(adam(rate), layers=LAYERS, starts=starts)


if __name__ == "__main__":
    cli.command_line(main, Config)
