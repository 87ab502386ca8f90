"""Continual learning: twenty tasks one after another in one net, one example per step.

A task of MNIST Rotations rotates all images by a fixed angle from 0 to 180 degrees. A task of MNIST
Permutations permutes the pixels in a fixed order. The net trains on 1,000 examples per task, each
of them once. After every task, it is evaluated on the 10,000 test images of all tasks. It has two
hidden layers of 100 units. The settings of each method are those of MER's authors (Riemer et al.,
https://arxiv.org/abs/1810.11910). A-GEM has those of GEM, with 256 old examples per step. Two slow
methods are not in the default: `--methods gem --seeds 1` and `--methods mer1 --seeds 1`.

Command: scripts/run continual [--data permutations]
Runtime: 26 minutes for rotations and 22 for permutations, on one of two busy CPU cores
Result: retained accuracy in %, 5 seeds, rotations and permutations: online 52.3 and 56.6, EWC 55.0
    and 61.0, A-GEM 62.5 and 77.9, ER 87.6 and 84.4, MER by algorithm 6 88.7 and 84.8
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.continual import draw_matrices, draw_retention, draw_tasks, report
from jaxdl.continual.agem import agem
from jaxdl.continual.base import Continual, check_stream
from jaxdl.continual.er import er
from jaxdl.continual.ewc import ewc
from jaxdl.continual.gem import gem
from jaxdl.continual.independent import independent
from jaxdl.continual.mer import mer, mer_one_batch
from jaxdl.continual.online import online
from jaxdl.data.sets.rotated_permuted import rearranged
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import INITIALISERS, mlp
from jaxdl.recipes.continual import SPLITS, learn, load, start
from jaxdl.runs import cli
from jaxdl.runs.config import Count, Natural, Range, RunFlags, Seeds, Start, each_once, flat
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Model, Params

CLASSES, HIDDEN = 10, 100


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["rotations", "permutations"] = "rotations"
    """Tasks: rotated images, or images with permuted pixels."""
    images: Literal["mnist", "digits"] = "mnist"
    """Images: MNIST, or scikit-learn's 1,797 digits of 8x8 pixels, which need no download."""
    methods: tuple[str, ...] = ("online", "independent", "ewc", "agem", "er", "mer6")
    """Methods to compare. There are also gem and mer1, which are slow."""
    tasks: Count = 20
    """Number of tasks in the stream."""
    examples: Count = 1000
    """Examples per task, a multiple of --log-every."""
    steps: Natural = 0
    """Examples of the stream to train on. 0 takes the whole stream."""
    memories: Natural = 5120
    """Examples per memory. GEM and A-GEM give each task an equal part of it."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    start: Start = Start()
    """Weights that the net of every method starts from. For a run, give the directory of one
    method, for example DIRECTORY/er."""
    random: Seeds = Seeds(seeds=5)
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def net(hidden: int = HIDDEN) -> Model:
    """A net from uint8 images `[n, pixels]` to logits."""
    dense = mlp((hidden, hidden, CLASSES), kernel_init=INITIALISERS["glorot"])

    def scaled(x: Any) -> Array:
        return jnp.asarray(x, jnp.float32) / 255

    def init(key: Key, x: Any) -> Params:
        return dense.init(key, scaled(x))

    def apply(
        params: Params, x: Any, *, key: Key | None = None, weight: Array | None = None
    ) -> Array:
        return dense.apply(params, scaled(x), key=key, weight=weight)

    return Model(init, apply)


def either(config: Config, rotations: float, permutations: float) -> float:
    """The setting for the stream of the configuration."""
    return rotations if config.data == "rotations" else permutations


def narrow(config: Config) -> Model:
    """A net per task. All of them together have the hidden units of one `net`."""
    return net(max(1, HIDDEN // config.tasks))


def rings(config: Config) -> dict[str, int]:
    """The memory of GEM and A-GEM."""
    return {"tasks": config.tasks, "memory_per_task": config.memories // config.tasks}


METHODS: dict[str, Callable[[Config], Continual]] = {
    "online": lambda c: online(net(), cross_entropy, optax.sgd(either(c, 3e-4, 3e-3))),
    "independent": lambda c: independent(narrow(c), cross_entropy, optax.sgd(0.01), tasks=c.tasks),
    "ewc": lambda c: ewc(
        net(),
        cross_entropy,
        optax.sgd(either(c, 1e-3, 1e-2)),
        strength=either(c, 100, 10),
        samples=10,
        of_mean=True,
    ),
    "agem": lambda c: agem(
        net(), cross_entropy, optax.sgd(0.01), **rings(c), replay_batch_size=256
    ),
    "gem": lambda c: gem(net(), cross_entropy, optax.sgd(0.01), **rings(c), margin=1.0),
    "er": lambda c: er(
        net(), cross_entropy, optax.sgd(0.1), capacity=c.memories, replay_batch_size=25
    ),
    "mer6": lambda c: mer_one_batch(
        net(),
        cross_entropy,
        lr=0.03,
        gamma=0.1,
        capacity=c.memories,
        replay_batch_size=int(either(c, 100, 50)),
    ),
    "mer1": lambda c: mer(
        net(),
        cross_entropy,
        lr=0.03,
        beta=0.03,
        gamma=1.0,
        capacity=c.memories,
        replay_batch_size=100,
        batches=10,
    ),
}
"""The methods by name, with the published settings for a memory of 5,120."""


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    config = dataclasses.replace(config, steps=config.steps or config.tasks * config.examples)
    return run_experiment("continual", config, experiment, report, label=config.data, check=check)


def check(config: Config) -> None:
    """Validates the configuration."""
    each_once("methods", config.methods, METHODS)
    Range(config.tasks).refuse("memories", config.memories)
    Range(1, config.tasks * config.examples).refuse("steps", config.steps)
    Range(0, 1).refuse("devices", config.run.devices)
    if config.examples % config.run.log_every:
        raise InputError(
            f"`examples={config.examples}` must be a multiple of"
            f" `log_every={config.run.log_every}`, because a task ends at a log point. Change one"
            " of them"
        )
    if config.start.init_from and "independent" in config.methods:
        raise InputError("`init_from=` starts one net: leave independent out of `methods=`")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains every method on the same streams, and draws the pictures."""
    sizes = config.tasks, config.examples
    problem, angles = load(config.data, config.images, *sizes, config.data_dir)
    keys = run_keys(config.random.seed, config.random.seeds)
    check_stream(problem.stream, keys, config.steps, config.tasks)
    found = {}
    for name in config.methods:
        part, method = run.part(name), METHODS[name](config)
        state = start(problem.stream, method, keys, config.start)
        found[name] = learn(part, problem, method, keys, state, examples=config.examples)
    images = len(problem.labels)
    about: dict[str, Any] = {
        "test_images": images,
        "split": SPLITS[config.images],
        "batch_norm": "none",
        "config": flat(config),
    }
    result: dict[str, Any] = {"methods": found, "angles": angles, **about}
    run.picture("retention", partial(draw_retention, result), size=(10, 4.6))
    run.picture("matrices", partial(draw_matrices, result), size=(11, 4.2))
    shown = jax.vmap(jax.vmap(rearranged, (None, 0)), (0, None))(problem.images[:4], problem.places)
    run.picture("tasks", partial(draw_tasks, np.asarray(shown), angles), size=(11, 2.8))
    return run.finish(result)


if __name__ == "__main__":
    cli.command_line(main, Config)
