"""MAML on few-shot image classification (section 5.2, arXiv:1703.03400), with two baselines.

MAML learns initial parameters. From these, a few gradient steps on K examples per class tell N new
classes apart. Each of the paper's recipes is a preset. The default needs no download. Parameters
are chosen on validation classes. Accuracy is measured on test classes. The baselines are
fine-tuning and nearest pixel centroids.

Command: scripts/run few_shot [--preset omniglot-5way-1shot]
Runtime: 1 minute for the default on 2 CPU cores; the paper's 60,000 steps need a GPU
Result: accuracy with its 95 % interval beside the paper's, see docs/results.md
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.few_shot import PAPER, deviations, draw_curve, draw_episode, report
from jaxdl import parallel
from jaxdl.data.episodes import few_shot
from jaxdl.data.sets.images import ImageData, Split
from jaxdl.losses import cross_entropy
from jaxdl.meta.protonet import nearest_centroid
from jaxdl.recipes import few_shot as recipe
from jaxdl.recipes import meta_training
from jaxdl.recipes.meta_training import one_on_cpu
from jaxdl.recipes.rates import best_rate
from jaxdl.recipes.score import score_by_seed
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    NotNegative,
    Positive,
    RunFlags,
    Seeds,
    Start,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run, say
from jaxdl.train.loop import per_seed
from jaxdl.train.streams import run_keys
from jaxdl.types import (
    MetaLearner,
    Params,
    Sampler,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FINE_TUNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds: every learner, step and seed meets the same episodes."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["numbers", "digits", "omniglot", "cifar_fs", "fc100"] = "numbers"
    """Images. `numbers` (two digits side by side) and `digits` need no download."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    split: Literal["maml", "vinyals"] = "maml"
    """Split of the Omniglot characters: MAML's 1100/100/423, or Vinyals' 1028/172/423."""
    rotations: Literal["none", "augment", "classes"] = "none"
    """Rotations by 90 degrees. augment: one per sampled class, as MAML. classes: as new classes."""
    ways: AtLeastTwo = 5
    """Classes per task."""
    shots: Count = 1
    """Support examples per class."""
    queries: Count = 5
    """Query examples per class in training tasks."""
    test_queries: Count = 5
    """Query examples per class in validation and test tasks. With `--norm batch` the accuracy
    depends on this number."""
    filters: Count = 32
    """Channels of each of the four convolutions."""
    head: Literal["xavier", "normal"] = "xavier"
    """Initialiser of the head for grey images. `normal` is that of the MAML code, and slower."""
    norm: Literal["batch", "support", "example"] = "batch"
    """Statistics of batch norm: of the batch (as MAML), of the support set, or of each example."""
    steps: Count = 4000
    """Meta-training steps."""
    tasks: Count = 16
    """Tasks per step."""
    inner_steps: Natural = 1
    """Inner gradient steps in a training task."""
    test_inner_steps: Natural = 3
    """Inner gradient steps in a validation or test task."""
    inner_lr: Positive = 0.4
    """Learning rate of the inner steps."""
    inner_loss: Literal["mean", "sum-over-classes"] = "mean"
    """Inner loss: the mean, as the paper prints it, or the sum over classes, as its code has it."""
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact"
    """Estimator of the meta-gradient."""
    lr: Positive = 0.003
    """Learning rate of the outer Adam."""
    clip: NotNegative = 0.0
    """Largest absolute value of an element of the meta-gradient. 0 does not clip."""
    pretraining_steps: Count = 1000
    """Training steps of the fine-tuning baseline, with 64 images per step."""
    chunk: Natural = 0
    """Tasks that are differentiated together. 0 takes 1 on a CPU, and all on an accelerator."""
    eval_every: Count = 500
    """Steps between validations, a multiple of --log-every."""
    eval_episodes: AtLeastTwo = 600
    """Episodes per validation."""
    test_episodes: AtLeastTwo = 6000
    """Episodes of the final test."""
    start: Start = Start()
    """Weights that MAML's net starts from. The fine-tuning baseline starts from random weights."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=50))


_OMNIGLOT = Config(
    data="omniglot",
    rotations="augment",
    filters=64,
    steps=60_000,
    lr=0.001,
    tasks=32,
    queries=1,
    test_queries=1,
    pretraining_steps=5000,
)
_TWENTY_WAYS = dataclasses.replace(
    _OMNIGLOT, ways=20, tasks=16, inner_steps=5, test_inner_steps=5, inner_lr=0.1
)
_CIFAR = Config(
    data="cifar_fs",
    steps=60_000,
    lr=0.001,
    tasks=4,
    queries=15,
    test_queries=15,
    inner_steps=5,
    test_inner_steps=10,
    inner_lr=0.01,
    inner_loss="sum-over-classes",
    clip=10.0,
    pretraining_steps=10_000,
)
PRESETS = {
    "numbers-5way-1shot": Config(),
    "digits-5way-1shot": Config(data="digits"),
    "omniglot-5way-1shot": _OMNIGLOT,
    "omniglot-5way-5shot": dataclasses.replace(_OMNIGLOT, shots=5, queries=5, test_queries=5),
    "omniglot-20way-1shot": _TWENTY_WAYS,
    "omniglot-20way-5shot": dataclasses.replace(_TWENTY_WAYS, shots=5, queries=5, test_queries=5),
    "cifar_fs-5way-1shot": _CIFAR,
    "cifar_fs-5way-5shot": dataclasses.replace(_CIFAR, shots=5, tasks=2),
}


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    label = f"{config.data}-{config.ways}way-{config.shots}shot"
    tasks_side_by_side = config.tasks // max(1, config.chunk)
    cores = partial(parallel.split_cores, tasks_side_by_side, config.run.devices)
    options: dict[str, Any] = {"label": label, "check": check, "prepare": cores}
    return run_experiment("few_shot", config, experiment, report, **options)


def check(config: Config) -> None:
    """Validates the configuration."""
    seeds_below(config.random, TEST_KEY)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Meta-training, both baselines, their test and the pictures."""
    options: dict[str, Any] = {"omniglot_split": config.split, "data_dir": config.data_dir}
    train_data, validation_data, test_data = (
        recipe.load_images(config.data, split, **options) for split in SPLITS
    )
    validation = episodes(config, validation_data, config.test_queries)
    test = episodes(config, test_data, config.test_queries)
    train = episodes(config, train_data, config.queries)
    learner = recipe.learner_of_images(flat(config))
    params, best_steps = meta_train(config, run, learner, train, validation)

    classes, part = len(train_data.class_names), run.part("pretrained", config.pretraining_steps)
    fine_tuning = partial(recipe.fine_tuning_of_images, flat(config), classes)
    keys = run_keys(config.random.seed, config.random.seeds)
    pretrained = recipe.pretrain(part, fine_tuning(0.0), train_data, lr=config.lr, keys=keys)
    rate = best_rate(
        fine_tuning,
        FINE_TUNING_RATES,
        pretrained,
        cross_entropy,
        validation,
        key=jax.random.key(VALIDATION_KEY),
        episodes=200,
        metric="accuracy",
        chunk=one_on_cpu(200),
    )
    centroid = nearest_centroid(cross_entropy, ways=config.ways)

    scores = partial(
        score_by_seed,
        loss=cross_entropy,
        sample=test,
        episodes=config.test_episodes,
        key=jax.random.key(TEST_KEY),
        chunk=one_on_cpu(200),
    )
    say("testing ...")
    result = {
        "maml": scores(learner, params, steps=config.test_inner_steps),
        "pretrained": scores(fine_tuning(rate), pretrained),
        "nearest_centroid": scores(centroid, jnp.zeros((1, 1))),
        "best_steps": best_steps,
        "fine_tuning_rate": rate,
        "paper": PAPER.get((config.data, config.ways, config.shots)),
        "batch_norm": recipe.BATCH_NORM[config.norm],
        "split": f"test: {len(test_data.class_names)} classes that training never saw",
        "deviations": [*test_data.notes, *deviations(flat(config))],
        "config": flat(config),
    }
    run.picture("learning_curve", partial(draw_curve, run), size=(6, 4))
    draw = partial(draw_episode, flat(config), learner, per_seed(params)[0])
    size = (1 + 1.2 * (config.shots + min(8, config.test_queries)), 0.5 + 1.1 * config.ways)
    run.picture("episode", partial(draw, test(jax.random.key(FIGURE_KEY))), size=size)
    return run.finish(result)


def episodes(config: Config, data: ImageData, queries: int) -> Sampler:
    """Tasks of a split, drawn on the device."""
    options: dict[str, Any] = {"ways": config.ways, "shots": config.shots, "queries": queries}
    return few_shot(data.images, data.labels, rotations=config.rotations, **options)


def meta_train(
    config: Config, run: Run, learner: MetaLearner, sample: Sampler, validation: Sampler
) -> tuple[Params, np.ndarray]:
    """The parameters `[seeds]` that were best on validation, and the steps they come from."""
    clip = [optax.clip(config.clip)] if config.clip else []
    validate = meta_training.validation_of(
        learner,
        cross_entropy,
        validation,
        key=jax.random.key(VALIDATION_KEY),
        episodes=config.eval_episodes,
        steps=config.test_inner_steps,
        chunk=one_on_cpu(200),
    )
    last = meta_training.meta_train(
        run,
        learner,
        sample,
        tx=optax.chain(*clip, optax.adam(config.lr)),
        keys=run_keys(config.random.seed, config.random.seeds),
        x=sample(jax.random.key(0)).support.x[:1],
        tasks=config.tasks,
        chunk=config.chunk or one_on_cpu(None),
        start=config.start,
        validate=validate,
        eval_every=config.eval_every,
        best="accuracy",
    )
    return run.best(last)


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
