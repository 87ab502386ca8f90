"""Twenty tasks one after another in one net, an example at a time: who forgets, and who does not.

MNIST Rotations or Permutations: 1,000 examples of each task, each seen once, of fixed rotations by
0 to 180 degrees or fixed orders of the pixels. A net of two hidden layers of 100 is judged after
every task on the 10,000 test images of all tasks. Step sizes and the rest of each recipe are those
that MER's authors published with their code (Riemer et al. 2019, https://arxiv.org/abs/1810.11910);
nothing was chosen here but A-GEM's, which are GEM's, with 256 old examples a step. By default all
methods but the two slow ones: `--methods gem --seeds 1`, `--methods mer1 --seeds 1`.

Command: scripts/run continual [--data permutations]
Runtime: 30 minutes for rotations and 26 for permutations, on 2 CPU cores that other work shared
Result: retained accuracy in %, 5 seeds, rotations and permutations: online 52.3 and 56.6, EWC 55.0
    and 61.0, A-GEM 62.3 and 77.3, ER 87.6 and 84.4, MER by algorithm 6 88.7 and 84.8
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

from experiments.reports import continual as words
from jaxdl.continual import scores
from jaxdl.continual.agem import agem
from jaxdl.continual.base import Continual, check_stream
from jaxdl.continual.er import er
from jaxdl.continual.ewc import ewc
from jaxdl.continual.gem import gem
from jaxdl.continual.independent import independent
from jaxdl.continual.mer import mer, mer_one_batch
from jaxdl.continual.online import online
from jaxdl.data.sets.digits import all_drawings
from jaxdl.data.sets.images import image_arrays
from jaxdl.data.sets.rotated_permuted import permutations, rearranged, rotations, task_after_task
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import INITIALISERS, mlp
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs import cli
from jaxdl.runs.checks import at_least
from jaxdl.runs.run import Run, RunFlags, open_run, say
from jaxdl.runs.weights import from_weights
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Model, Params, Stream

CLASSES, HIDDEN = 10, 100
DATA_SEED = 0
"""Angles and orders are the same for all seeds, as in the paper."""


@dataclasses.dataclass(frozen=True)
class Config:
    data: Literal["rotations", "permutations"] = "rotations"
    """What the tasks do to the images."""
    images: Literal["mnist", "digits"] = "mnist"
    """MNIST, or scikit-learn's 1,797 digits of 8x8 pixels, which need no download."""
    methods: tuple[str, ...] = ("online", "independent", "ewc", "agem", "er", "mer6")
    """Methods; there are also gem and mer1, which take long."""
    tasks: int = 20
    """Tasks of the stream."""
    examples: int = 1000
    """Examples of each task, a multiple of `log_every`."""
    steps: int = 0
    """Examples to learn from, if not the whole stream."""
    memories: int = 5120
    """Examples that a memory holds; GEM and A-GEM share them out among the tasks."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    init_from: Path | None = None
    """Start the net, under every method, from these weights: a .npz of weights, or a part
    of a run, say DIRECTORY/er, of whose seeds each starts one here."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same."""
    seed: int = 0
    """First seed."""
    seeds: int = 5
    """How many seeds, from `seed` upward, learn in one program."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def net(hidden: int = HIDDEN) -> Model:
    """Bytes `[n, pixels]` to logits."""
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
    """A setting that depends on the stream."""
    return rotations if config.data == "rotations" else permutations


def narrow(config: Config) -> Model:
    """A net of which all tasks' together have as many hidden units as the others' one net."""
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


class Problem(NamedTuple):
    """A stream of examples; test images `[n, ...]`, labels `[n]`, and each task's places."""

    stream: Stream
    images: Array
    labels: Array
    places: Array


def main(config: Config) -> dict[str, Any]:
    """Learns, or resumes, or reprints; returns what result.json holds."""
    config = dataclasses.replace(config, steps=config.steps or config.tasks * config.examples)
    check(config)
    with open_run("continual", config, label=config.data) as run:
        result = run.result() or experiment(config, run)
    print(words.report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "tasks", "examples", "seeds", "steps")
    at_least(config, 0, "seed")
    at_least(config, config.tasks, "memories")
    at_least(config.run, 1, "log_every")
    at_least(config, 1, "steps", most=config.tasks * config.examples)
    at_least(config.run, 0, "devices", most=1)
    if config.examples % config.run.log_every:
        raise InputError(
            f"--examples {config.examples} must be a multiple of --log-every"
            f" {config.run.log_every}, for a task ends at a log point"
        )
    if unknown := [name for name in config.methods if name not in METHODS]:
        raise InputError(f"--methods {unknown[0]}: choose among {' '.join(METHODS)}")
    if config.init_from and "independent" in config.methods:
        raise InputError("--init-from starts one net: leave independent, of many, out of --methods")
    if not config.methods or len(set(config.methods)) < len(config.methods):
        raise InputError(f"--methods {' '.join(config.methods)}: give one at least, and each once")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Every method on the same streams, and the pictures."""
    problem, angles = load(config)
    check_stream(problem.stream, run_keys(config.seed, config.seeds), config.steps, config.tasks)
    found = {
        name: learn(config, run.part(name), problem, METHODS[name](config))
        for name in config.methods
    }
    result: dict[str, Any] = {
        "methods": found,
        "angles": angles,
        "test_images": len(problem.labels),
        "config": dataclasses.asdict(config),
    }
    result["finding"] = words.finding(result)
    run.picture("retention", partial(words.draw_retention, result), size=(10, 4.6))
    run.picture("matrices", partial(words.draw_matrices, result), size=(11, 4.2))
    shown = jax.vmap(jax.vmap(rearranged, (None, 0)), (0, None))(problem.images[:4], problem.places)
    run.picture("tasks", partial(words.draw_tasks, np.asarray(shown), angles), size=(11, 2.8))
    return run.finish(result)


# ---- data


def load(config: Config) -> tuple[Problem, list[float] | None]:
    """The stream and the test set, on the device; and the angles of rotations."""
    if config.images == "mnist":
        train, test = (
            image_arrays("mnist", split, data_dir=config.data_dir) for split in ("train", "test")
        )
        images, labels, seen, truth = train.images, train.labels, test.images, test.labels
    else:
        drawings, digits = all_drawings()
        images, labels, seen, truth = (
            drawings[:1500],
            digits[:1500],
            drawings[1500:],
            digits[1500:],
        )
    side, angles = images.shape[1], None
    if config.data == "rotations":
        places, drawn = rotations(DATA_SEED, config.tasks, side)
        angles = drawn.tolist()
    else:
        places = permutations(DATA_SEED, config.tasks, side * side)
    if config.examples > len(images):
        raise InputError(f"--examples {config.examples}: there are {len(images):,} images")
    stream = task_after_task(images, labels, places, examples=config.examples)
    test_set = jnp.asarray(seen), jnp.asarray(truth, jnp.int32)
    return Problem(stream, *test_set, jnp.asarray(places)), angles


# ---- learning and judging


def start(config: Config, stream: Stream, method: Continual, keys: Key) -> Any:
    """The state of all seeds before the first example."""
    like = jax.eval_shape(lambda: stream(keys[0], jnp.int32(0)))
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    state = jax.jit(lambda keys: lax.map(lambda key: method.init(key, like), keys))(keys)
    params, _ = from_weights(config.init_from, config.init_except, state.params)
    return state._replace(step=jnp.int32(0), params=params)


def learn(config: Config, part: Run, problem: Problem, method: Continual) -> dict[str, Any]:
    """Learns the stream with all seeds; figures of their accuracies after every task."""
    keys = run_keys(config.seed, config.seeds)
    state = part.restore(start(config, problem.stream, method, keys))
    measure = judge(method, problem)
    points = part.evaluation_points(
        method.step, problem.stream, keys, state, split="test", every=config.examples, tasks=1
    )
    clock, since = time.perf_counter(), -1  # the first task after a start also compiles
    for i, now in points:
        if since >= 0:
            spent = 1000 * (time.perf_counter() - clock) / (i - since)
            part.log(i, "time", {"ms_per_example": spent / config.seeds})
        accuracy = measure(now)
        part.log(i, "test", {f"task_{task:02}": of for task, of in enumerate(accuracy.T)})
        known = accuracy[:, : -(-i // config.examples)].mean()
        say(f"{part.directory.name}: after {i:,} examples {100 * known:.1f} % of the tasks so far")
        clock, since = time.perf_counter(), i
    return figures(part)


def judge(method: Continual, problem: Problem) -> Callable[[Any], np.ndarray]:
    """`state -> accuracy [seeds, tasks]` on the test images of every task."""

    @jax.jit
    def judged(state: Any, images: Array, labels: Array, places: Array) -> Array:
        by_pixel = images.reshape(len(images), -1).T  # so that a task moves whole rows

        def of_task(own: Any, task: Array) -> Array:
            here = places[task]
            x = jnp.where(here[:, None] < 0, 0, by_pixel[here]).T
            return jnp.mean(jnp.argmax(method.predict(own, task, x), axis=1) == labels)

        def of_seed(own: Any) -> Array:
            return lax.map(lambda task: of_task(own, task), jnp.arange(len(places)))

        return lax.map(of_seed, state)

    return lambda state: np.asarray(judged(state._replace(step=None), *problem[1:]))


def figures(part: Run) -> dict[str, Any]:
    """The scores over seeds, and the matrix they come from, of a method that has learnt.

    Of a stream that was stopped early the tasks that it reached count.
    """
    lines, clock = part.metrics("test"), part.metrics("time")
    columns = [values for name, values in lines.items() if name != "step"]
    matrix = np.moveaxis(np.stack(columns, axis=1), 2, 0)  # [seeds, rows, tasks]
    known = matrix[:, :, : matrix.shape[1]]
    return {
        "retained": seeds_summary(scores.retained(known)),
        "learning": seeds_summary(scores.learning(known)),
        "transfer": seeds_summary(scores.transfer(known)),
        "matrix": matrix.mean(axis=0),
        "first_task": [seeds_summary(row) for row in matrix[:, :, 0].T],
        "tasks_so_far": [
            seeds_summary(matrix[:, row, : row + 1].mean(axis=1)) for row in range(known.shape[1])
        ],
        "ms_per_example": float(np.median(clock["ms_per_example"])) if clock else None,
    }


if __name__ == "__main__":
    cli.command_line(main, Config)
