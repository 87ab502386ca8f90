"""Transfer learning: linear probe, fine-tuning, gradual unfreezing and MAML, by labels per class.

A net learns to classify a source: the digits 0 to 4, Omniglot's background alphabets, or twelve
superclasses of CIFAR-100. The target has new classes: the digits 5 to 9, 110 characters of the
evaluation alphabets, or four other superclasses. Five methods learn the target. A linear probe
trains the head alone. Full fine-tuning trains all layers. Gradual unfreezing (arXiv:1801.06146)
begins with the head and adds one layer every --stage steps. MAML (arXiv:1703.03400) fine-tunes from
parameters that are meta-trained on the source. Training from scratch is the baseline. Learning rate
and number of steps are chosen on validation examples. There are more validation examples than the
small counts have labels.

Command: scripts/run transfer [--data omniglot]
Runtime: 18 minutes on one of two busy CPU cores
Result: MNIST, 3 seeds, test accuracy in % with 20 labels per class: from scratch 90.5, linear probe
    81.1, full fine-tuning 91.6, gradual unfreezing 91.6, MAML 91.9
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from experiments.reports.transfer import METHODS, report
from jaxdl.data.subsets import ALL, size
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.optim.transfer import NEVER, unfreezing, with_new_head
from jaxdl.recipes import few_labels
from jaxdl.recipes.few_labels import Images, Optimiser, Problem, Training, classes_of, seen
from jaxdl.recipes.problems import OTHER, other_classes
from jaxdl.report import pictures
from jaxdl.runs import cli
from jaxdl.runs.config import Count, Natural, Positive, RunFlags, Seeds, Start, flat
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run, say
from jaxdl.runs.weights import from_weights
from jaxdl.train.evaluation import measure
from jaxdl.types import Array, Model, Params

COUNTS = {
    "mnist": (1, 5, 20, 100, 0),
    "omniglot": (1, 5, 10, 0),
    "cifar100": (1, 5, 20, 100, 0),
    "digits": (1, 5, 20, 0),
}
LAYERS = ("Dense_2", "Dense_1", "Dense_0", "Conv_1", "Conv_0")
"""LeNet's layers from the top, in the order of gradual unfreezing. The first is the head."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["mnist", "omniglot", "cifar100", "digits"] = "mnist"
    """Data set whose classes are divided into source and target. `digits` needs no download."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    counts: tuple[Natural, ...] = ()
    """Labels per class, rising (0 for all). By default 1 5 20 100 0 for MNIST and CIFAR-100."""
    steps: Count = 400
    """Training steps per method."""
    batch: Count = 64
    """Examples per step."""
    rates: tuple[Positive, ...] = (0.001, 0.003, 0.01)
    """Learning rates of Adam to choose from."""
    stage: Count = 40
    """Steps after which gradual unfreezing adds one layer."""
    start: Start = Start()
    """Weights whose trunk replaces the training on the source. The head is new."""
    source_steps: Count = 3000
    """Training steps on the source."""
    meta_steps: Count = 2000
    """Meta-training steps on the source, for MAML."""
    tasks: Count = 4
    """Tasks per meta-training step, with 1 support and 3 query examples per class."""
    inner_lr: Positive = 0.4
    """Learning rate of the one inner step of MAML."""
    lr: Positive = 0.003
    """Adam's learning rate on the source, also in meta-training."""
    eval_every: Count = 100
    """Steps between validations, a multiple of --log-every."""
    random: Seeds = Seeds(seeds=3)
    """Each seed has other labelled examples and another initialisation."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    return run_experiment("transfer", config, experiment, report, label=config.data, check=check)


def check(config: Config) -> None:
    """Validates the configuration."""
    few_labels.check_counts(counts_of(config))
    few_labels.check_rates(config.rates)


def counts_of(config: Config) -> tuple[int, ...]:
    """Labels per class. 0 stands for all."""
    return config.counts or COUNTS[config.data]


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains twice on the source, then all five methods, and draws the picture."""
    problem, source_test = other_classes(config.data, config.data_dir)
    few_labels.check_sizes(problem, counts_of(config), config.data)
    training = few_labels.training_of(
        config.random,
        batch=config.batch,
        eval_every=config.eval_every,
        devices=config.run.devices,
    )
    model, counts = net(classes_of(problem)), counts_of(config)
    start = few_labels.fresh(problem, model, training.keys)
    trained, source = transferred(config, run, problem, start, training, source_test)
    part = run.part("meta", config.meta_steps)
    options: dict[str, Any] = {"inner_lr": config.inner_lr, "lr": config.lr}
    meta = few_labels.meta_trained(part, problem, model, training, tasks=config.tasks, **options)
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
        "split": OTHER[config.data],
        "batch_norm": "none",
        "config": flat(config),
    }
    run.picture("accuracy", partial(pictures.accuracy_by_count, result, METHODS), size=(6.5, 4.5))
    return run.finish(result)


def net(classes: int) -> Model:
    """LeNet. It has no batch norm, so no prediction depends on another example."""
    return lenet(classes, torch_init=False)


def transferred(
    config: Config,
    run: Run,
    problem: Problem,
    start: Params,
    training: Training,
    source_test: Images,
) -> tuple[Params, Array | None]:
    """The trunk of a source classifier with the head of `start`, and the classifier's accuracy.

    The parameters have a leading axis `[seeds]`. The accuracy `[seeds]` is on held-out source
    images. It is None with `init_from`, because then there is no classifier.
    """
    if config.start.init_from is not None:
        new = (LAYERS[0], *config.start.init_except)
        return from_weights(config.start.init_from, new, start)[0], None
    model = net(int(problem.source[1].max()) + 1)
    part = run.part("source", config.source_steps)
    source = few_labels.pretrained(part, problem.source, model, training, lr=config.lr)
    judge = measure(without_stats(model), cross_entropy, seen, devices=training.devices)
    accuracy = judge(source, {}, *map(jnp.asarray, source_test))["accuracy"]
    return with_new_head(source, start, head=LAYERS[0]), accuracy


def starts_of(method: str, stage: int) -> np.ndarray:
    """The step at which each of `LAYERS` starts to train, `[layers]`."""
    depth = np.arange(len(LAYERS))
    if method == "probe":
        return np.where(depth == 0, 0, NEVER)
    return depth * stage if method == "gradual" else 0 * depth


def optimiser(starts: np.ndarray) -> Optimiser:
    """Adam that starts each layer at its own step. Learning rate and starts are in its state."""
    adam = few_labels.adamw()
    return lambda rate: unfreezing(adam(rate), layers=LAYERS, starts=starts)


if __name__ == "__main__":
    cli.command_line(main, Config)
