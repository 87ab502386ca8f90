"""One task after another: the stream, the training of all seeds, and the scores after each task."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.continual import scores
from jaxdl.continual.base import Continual
from jaxdl.data.sets.digits import all_drawings
from jaxdl.data.sets.images import image_arrays
from jaxdl.data.sets.rotated_permuted import permutations, rotations, task_after_task
from jaxdl.errors import InputError
from jaxdl.losses import correct
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.config import Start
from jaxdl.runs.run import Run, say
from jaxdl.runs.weights import from_weights
from jaxdl.types import Array, Key, PyTree, Stream

DATA_SEED = 0
"""Seed of the angles and of the orders of pixels. It is one for all runs, as in MER's paper."""


SPLITS = {
    "mnist": "MNIST's test images, moved as in each task",
    "digits": "the last 297 images, moved as in each task",
}
"""The split of each set of images."""


class Problem(NamedTuple):
    """A stream of examples, and the test images of all tasks.

    `images` is `[n, height, width, 1]`, `labels` is `[n]`. `places` `[tasks, pixels]` is the index,
    in the original image, of each pixel of a task's image.
    """

    stream: Stream
    images: Array
    labels: Array
    places: Array


def load(
    data: str, images: str, tasks: int, examples: int, data_dir: Path | None
) -> tuple[Problem, list[float] | None]:
    """The stream and the test set, on the device, and the angles of rotations.

    Args:
        data: "rotations" or "permutations".
        images: "mnist", or the "digits" of scikit-learn. Their last 297 images are test images.

    Raises:
        InputError: if a task has more examples than there are images.
    """
    if images == "mnist":
        train, test = (image_arrays("mnist", part, data_dir=data_dir) for part in ("train", "test"))
        pairs = [(part.images, part.labels) for part in (train, test)]
    else:
        drawings, digits = all_drawings()
        pairs = [(drawings[part], digits[part]) for part in (slice(1500), slice(1500, None))]
    (x, y), (test_x, test_y) = pairs
    side, angles = x.shape[1], None
    if data == "rotations":
        places, drawn = rotations(DATA_SEED, tasks, side)
        angles = drawn.tolist()
    else:
        places = permutations(DATA_SEED, tasks, side * side)
    if examples > len(x):
        raise InputError(
            f"`examples={examples}`: there are {len(x):,} images. Choose no more than that"
        )
    stream = task_after_task(x, y, places, examples=examples)
    test_set = jnp.asarray(test_x), jnp.asarray(test_y, jnp.int32)
    return Problem(stream, *test_set, jnp.asarray(places)), angles


def start(stream: Stream, method: Continual, keys: Key, weights: Start) -> Any:
    """The state of all seeds before the first example."""
    like = jax.eval_shape(lambda: stream(keys[0], jnp.int32(0)))
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    state = jax.jit(lambda keys: lax.map(lambda key: method.init(key, like), keys))(keys)
    params, _ = from_weights(weights.init_from, weights.init_except, state.params)
    return state._replace(step=jnp.int32(0), params=params)


def learn(
    part: Run, problem: Problem, method: Continual, keys: Key, state: Any, *, examples: int
) -> dict[str, Any]:
    """Trains all seeds on the stream, from `state`, or from the last checkpoint of the run.

    A task has `examples` examples. After each task, the accuracy on the test images of all tasks is
    journaled.

    Returns:
        The `scores_of` the run.
    """
    measure = accuracy_of(method, problem)
    points = part.evaluation_points(
        method.step,
        problem.stream,
        keys,
        part.restore(state),
        split="test",
        every=examples,
    )
    clock, since = time.perf_counter(), -1  # the first task after a start also compiles
    for i, now in points:
        if since >= 0:
            spent = 1000 * (time.perf_counter() - clock) / (i - since)
            part.log(i, "time", {"ms_per_example": spent / len(keys)})
        accuracy = measure(now)
        part.log(i, "test", {f"task_{task:02}": of for task, of in enumerate(accuracy.T)})
        known = accuracy[:, : -(-i // examples)].mean()
        say(f"{part.directory.name}: after {i:,} examples {100 * known:.1f} % of the tasks so far")
        clock, since = time.perf_counter(), i
    return scores_of(part)


def accuracy_of(method: Continual, problem: Problem) -> Callable[[Any], np.ndarray]:
    """`state -> accuracy [seeds, tasks]` on the test images of every task."""

    @jax.jit
    def run(state: Any, images: Array, labels: Array, places: Array) -> Array:
        by_pixel = images.reshape(len(images), -1).T  # [pixels, n], so a task moves whole rows

        def of_task(own: PyTree, task: Array) -> Array:
            here = places[task]
            x = jnp.where(here[:, None] < 0, 0, by_pixel[here]).T
            return jnp.mean(correct(method.predict(own, task, x), labels))

        def of_seed(own: PyTree) -> Array:
            return lax.map(lambda task: of_task(own, task), jnp.arange(len(places)))

        return lax.map(of_seed, state)

    return lambda state: np.asarray(run(state._replace(step=None), *problem[1:]))


def scores_of(part: Run) -> dict[str, Any]:
    """The scores over seeds of a trained method, and the matrix of accuracies behind them.

    If the run stopped early, only the tasks that it reached count.
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
