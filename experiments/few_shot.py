"""MAML on few-shot image classification, beside two baselines (section 5.2, arXiv:1703.03400).

The net learns an initialisation from which a few gradient steps on K examples a class tell N new
classes apart. The recipes are the paper's, a preset each; the default needs no download. Selection
is on validation classes, the report on test classes that nothing was tuned on.

Command: scripts/run few_shot [--preset omniglot-5way-1shot]
Runtime: a minute for the default on 2 CPU cores; the paper's recipes belong on a GPU
Result: accuracy with 95 % interval beside the paper's, see README.md
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _few_shot as words
from jaxdl import parallel
from jaxdl.data.episodes import few_shot
from jaxdl.data.examples import examples
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.data.sets.images import ImageData, few_shot_arrays
from jaxdl.data.sets.two_digits import numbers_few_shot
from jaxdl.grads import over_tasks
from jaxdl.losses import cross_entropy
from jaxdl.meta.base import evaluate
from jaxdl.meta.protonet import nearest_centroid
from jaxdl.recipes import few_shot as recipe
from jaxdl.report import pictures
from jaxdl.report.intervals import mean_ci95
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run, say
from jaxdl.runs.weights import started
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import (
    Array,
    MetaLearner,
    Params,
    Sampler,
    TaskLearner,
    TrainState,
    TransferLearner,
)

PAPER = {
    ("omniglot", 5, 1): "98.7 ± 0.4",
    ("omniglot", 5, 5): "99.9 ± 0.1",
    ("omniglot", 20, 1): "95.8 ± 0.3",
    ("omniglot", 20, 5): "98.9 ± 0.2",
    ("cifar_fs", 5, 1): "58.9 ± 1.9",
    ("cifar_fs", 5, 5): "71.5 ± 1.0",
}
"""Accuracy of MAML in percent: table 1 of the paper; CIFAR-FS in table 2 of MetaOptNet."""
FINE_TUNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds: every learner, step and seed meets the same episodes."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["numbers", "digits", "omniglot", "cifar_fs", "fc100"] = "numbers"
    """Images: two digits of scikit-learn side by side, or one mirrored and turned, need no
    download; the others `scripts/prepare`."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    split: Literal["maml", "vinyals"] = "maml"
    """Division of the Omniglot characters: MAML's 1100/100/423 or Vinyals' 1028/172/423."""
    rotations: Literal["none", "augment", "classes"] = "none"
    """Turns by 90 degrees: one a sampled class, as MAML does, or as new classes."""
    ways: int = 5
    """Classes of a task."""
    shots: int = 1
    """Given examples a class."""
    queries: int = 5
    """Asked examples a class in training tasks."""
    test_queries: int = 5
    """Asked examples a class in validation and test tasks; with batch norm by the batch's own
    statistics they help each other, so the number belongs to the result."""
    filters: int = 32
    """Channels of each of the four convolutions."""
    head: Literal["xavier", "normal"] = "xavier"
    """How the head starts where images are not in colour: "normal" is the MAML code's, of standard
    deviation 1, with which learning is several times as slow in the beginning."""
    norm: Literal["batch", "support", "example"] = "batch"
    """Batch norm by the statistics of the batch at hand (transductive, as MAML), of the support set
    for its queries too, or of each example."""
    steps: int = 4000
    """Meta-training steps."""
    tasks: int = 16
    """Tasks a step."""
    inner_steps: int = 1
    """Gradient steps inside a training task."""
    test_inner_steps: int = 3
    """Gradient steps inside a validation or test task."""
    inner_lr: float = 0.4
    """Size of the inner steps."""
    inner_loss: Literal["mean", "sum-over-classes"] = "mean"
    """The inner loss as the paper prints it, or as its code computes it: there cross-entropy is
    divided by the shots and not by the ways, so its steps are `ways` times as large."""
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact"
    """How the meta-gradient passes through the inner gradient."""
    lr: float = 0.003
    """Adam's step size outside."""
    clip: float = 0.0
    """Largest absolute value of an element of the meta-gradient; 0 does not clip."""
    pretraining_steps: int = 1000
    """Steps of the fine-tuning baseline, each of 64 training images."""
    chunk: int = 0
    """Tasks that are differentiated together; 0 takes 1 on a CPU and all on an accelerator."""
    eval_every: int = 500
    """Steps between validations, a multiple of `log_every`."""
    eval_episodes: int = 600
    """Episodes of a validation."""
    test_episodes: int = 6000
    """Episodes of the final test."""
    init_from: Path | None = None
    """Start MAML's net, not that of the baseline, from these weights: a .npz of weights, or
    a run's directory, of whose seeds each starts one here."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: a head of other classes, say."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds, from `seed` upward, train in one program."""
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
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    parallel.split_cores(config.tasks // max(1, config.chunk), config.run.devices)
    label = f"{config.data}-{config.ways}way-{config.shots}shot"
    with open_run("few_shot", config, label=label) as run:
        result = run.result() or experiment(config, run)
    print(words.report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 2, "ways", "eval_episodes", "test_episodes")
    at_least(config, 1, "steps", "tasks", "shots", "queries", "test_queries", "filters")
    at_least(config, 1, "seeds", "eval_every", "pretraining_steps")
    at_least(config, 0, "inner_steps", "test_inner_steps", "chunk", "clip")
    at_least(config, 0, "seed", most=TEST_KEY - 1 - config.seeds)
    above_zero(config, "inner_lr", "lr")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Meta-training, both baselines, their test and the pictures."""
    data = {split: load_data(config, split) for split in ("train", "validation", "test")}
    train = episodes(config, data["train"], config.queries)
    validation, test = (
        episodes(config, data[split], config.test_queries) for split in ("validation", "test")
    )
    learner = learner_of(config)
    params, best_steps = meta_train(config, run, learner, train, validation)
    pretrained = pretrain(config, run.part("pretrained", config.pretraining_steps), data["train"])
    rate = best_fine_tuning_rate(config, pretrained, data["train"], validation)
    fine_tuned = fine_tuning(config, data["train"], rate)
    centroid = nearest_centroid(cross_entropy, ways=config.ways)

    say("testing ...")
    result = {
        "maml": scores(config, learner, params, test, config.test_inner_steps),
        "pretrained": scores(config, fine_tuned, pretrained, test, None),
        "nearest_centroid": scores(config, centroid, jnp.zeros((1, 1)), test, None),
        "best_steps": best_steps,
        "fine_tuning_rate": rate,
        "paper": PAPER.get((config.data, config.ways, config.shots)),
        "batch_norm": recipe.BATCH_NORM[config.norm],
        "split": f"test: {len(data['test'].class_names)} classes that training never saw",
        "deviations": deviations(config, data["test"]),
        "config": dataclasses.asdict(config),
    }
    run.picture("learning_curve", partial(draw_curve, run), size=(6, 4))
    shown = test(jax.random.key(FIGURE_KEY))
    adapted = learner.adapt(
        jax.random.key(0), per_seed(params)[0], shown.support, config.test_inner_steps
    )
    logits = learner.predict(adapted, shown.query.x)
    columns = config.shots + min(8, config.test_queries)
    size = (1 + 1.2 * columns, 0.5 + 1.1 * config.ways)
    run.picture("episode", partial(pictures.episode, shown, logits), size=size)
    return run.finish(result)


def load_data(config: Config, split: Any) -> ImageData:
    """The images of one split."""
    if config.data == "numbers" or config.data == "digits":
        make = numbers_few_shot if config.data == "numbers" else digits_few_shot
        images, labels, names = make(split)
        return ImageData(images, labels, tuple(names), np.zeros(1), np.ones(1))
    return few_shot_arrays(
        config.data, split, omniglot_split=config.split, data_dir=config.data_dir
    )


def episodes(config: Config, data: ImageData, queries: int) -> Sampler:
    """Tasks of a split, drawn on the device."""
    return few_shot(
        data.images,
        data.labels,
        ways=config.ways,
        shots=config.shots,
        queries=queries,
        rotations=config.rotations,
    )


def learner_of(config: Config) -> MetaLearner:
    """The MAML learner of a configuration."""
    return recipe.maml_of_images(
        recipe.IMAGE_SHAPES[config.data],
        ways=config.ways,
        filters=config.filters,
        norm=config.norm,
        head=config.head,
        inner_lr=config.inner_lr,
        inner_steps=config.inner_steps,
        inner_loss=config.inner_loss,
        estimator=config.estimator,
    )


def meta_train(
    config: Config, run: Run, learner: MetaLearner, sample: Sampler, validation: Sampler
) -> tuple[Params, np.ndarray]:
    """The parameters `[seeds]` that were best on validation, and the steps they come from."""
    devices = parallel.count_devices(config.run.devices)
    axis = parallel.axis_name(devices)
    chunk = config.chunk or (1 if jax.default_backend() == "cpu" else None)
    grad = over_tasks(learner.grad, chunk=chunk, axis_name=axis)
    clip = [optax.clip(config.clip)] if config.clip else []
    tx = optax.chain(*clip, optax.adam(config.lr))

    image = sample(jax.random.key(0)).support.x[:1]
    keys = run_keys(config.seed, config.seeds)
    state = init_states(lambda key: learner.init(key, image), keys, tx)
    state = run.restore(started(state, config.init_from, config.init_except))
    measure = evaluate(
        learner,
        cross_entropy,
        validation,
        episodes=config.eval_episodes,
        depths=(config.test_inner_steps,),
        chunk=evaluation_chunk(),
    )

    def validate(state: TrainState) -> dict[str, list[float]]:
        found = [measure(jax.random.key(VALIDATION_KEY), each) for each in per_seed(state.params)]
        return {name: [float(each[name].mean()) for each in found] for name in found[0]}

    state = run.train(
        make_step(grad, tx),
        task_stream(sample, config.tasks),
        keys,
        state,
        validate=validate,
        eval_every=config.eval_every,
        best="accuracy",
        tasks=config.tasks,
        devices=devices,
    )
    return run.best(state.params)


def pretrain(config: Config, run: Run, data: ImageData) -> Params:
    """Supervised training on all classes of the training split, for the fine-tuning baseline."""
    learner = fine_tuning(config, data, 0.0)
    tx = optax.adam(config.lr)
    keys = run_keys(config.seed, config.seeds)
    image = jnp.zeros((2, *data.images.shape[1:]))
    state = run.restore(init_states(lambda key: learner.init(key, image), keys, tx))
    stream = task_stream(examples(data.images, data.labels), 64)
    return run.train(make_step(learner.grad, tx), stream, keys, state, tasks=64).params


def fine_tuning(config: Config, data: ImageData, rate: float | Array) -> TransferLearner:
    """The learner of the baseline: a new head, and ten steps on everything."""
    return recipe.finetune_of_images(
        recipe.IMAGE_SHAPES[config.data],
        classes=len(data.class_names),
        ways=config.ways,
        filters=config.filters,
        norm=config.norm,
        lr=rate,
    )


def best_fine_tuning_rate(
    config: Config, params: Params, data: ImageData, validation: Sampler
) -> float:
    """The step size of the baseline with the best accuracy on 200 validation episodes."""
    key = jax.random.key(VALIDATION_KEY)

    def accuracy(rate: Array) -> Array:
        learner = fine_tuning(config, data, rate)
        run = evaluate(learner, cross_entropy, validation, episodes=200, chunk=evaluation_chunk())
        return jnp.mean(jax.lax.map(lambda each: run(key, each)["accuracy"], params))

    found = jax.lax.map(accuracy, jnp.asarray(FINE_TUNING_RATES))
    return FINE_TUNING_RATES[int(jnp.argmax(jnp.nan_to_num(found, nan=-1.0)))]


def evaluation_chunk() -> int:
    """Episodes at once: a CPU's cache wants one, an accelerator many."""
    return 1 if jax.default_backend() == "cpu" else 200


def scores(
    config: Config, learner: TaskLearner, params: Params, test: Sampler, depth: int | None
) -> list[dict[str, float]]:
    """Accuracy and loss on the test episodes, each with its 95 % interval, one a seed."""
    run = evaluate(
        learner,
        cross_entropy,
        test,
        episodes=config.test_episodes,
        depths=(depth,),
        chunk=evaluation_chunk(),
    )
    found = []
    for each in per_seed(params):
        values = run(jax.random.key(TEST_KEY), each)
        accuracy, ci95 = mean_ci95(np.asarray(values["accuracy"][0]))
        found.append({"accuracy": accuracy, "ci95": ci95, "loss": float(values["loss"].mean())})
    return found


def deviations(config: Config, data: ImageData) -> list[str]:
    """Where this run departs from the paper, to be printed beside its number."""
    found = list(data.notes)
    if config.data not in ("numbers", "digits"):
        found.append(
            "Inner loss: the mean over the support set, as the paper prints it; its code sums over"
            " classes."
            if config.inner_loss == "mean"
            else "Inner loss: summed over classes, as the code does; the paper prints the mean."
        )
        if config.data == "omniglot" and config.head == "xavier":
            found.append("The head starts as Xavier; the code draws it with standard deviation 1.")
        found.append("All parameters adapt; in the code the batch-norm offsets do not.")
        found.append(f"The paper trains 60,000 steps; this run {config.steps:,}.")
    return found


def draw_curve(run: Run, figure: Any) -> None:
    """Accuracy by meta-step: on training tasks, and on validation classes."""
    axis = figure.subplots()
    for split, style in (("train", {"alpha": 0.5}), ("validation", {"marker": "o"})):
        lines = run.metrics(split)
        axis.plot(lines["step"], 100 * lines["accuracy"].mean(axis=1), label=split, **style)
    axis.set(xlabel="meta-step", ylabel="query accuracy in %")
    axis.legend()


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
