"""Streams of tasks for continual learning: MNIST Rotations and Permutations, made on the device.

A task rearranges pixels by `places` `[pixels]`: for each pixel of the new image, its index in the
old image, or -1 for paper. All tasks share one copy of the images. Rotations equal Pillow's
`rotate` with its default (nearest pixel), bit for bit. The range of angles is divided into `tasks`
equal parts, and each task draws one angle from its part, as in the code of GEM
(https://arxiv.org/abs/1706.08840).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdl.data.epochs import shuffled
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Example, Key, Shard


def rotations(
    seed: int, tasks: int, side: int, *, degrees: float = 180.0
) -> tuple[np.ndarray, np.ndarray]:
    """Tasks that rotate images of `side` x `side` pixels anticlockwise, each by one fixed angle.

    Returns:
        places: int32 `[tasks, pixels]`.
        angles: float64 `[tasks]`; the angle of task t is between `t / tasks` and `(t + 1) / tasks`
            of `degrees`.
    """
    parts = np.arange(tasks) + np.random.default_rng(seed).random(tasks)
    angles = parts * (degrees / tasks)
    return np.stack([turned(angle, side) for angle in angles]), angles


def turned(angle: float, side: int) -> np.ndarray:
    """The places `[side * side]` that rotate an image anticlockwise by `angle` degrees.

    Coordinates are integers in units of 1/65536 pixel, as in Pillow, so that ties round as there.
    """
    cos, sin = (round(f(-math.radians(angle)), 15) for f in (math.cos, math.sin))
    along, across = (math.floor(value * 65536 + 0.5) for value in (cos, sin))
    middle = side / 2
    # The source of the centre of the first pixel.
    x, y = (
        middle - cos * middle - sin * middle + (cos + sin) / 2,
        middle + sin * middle - cos * middle + (cos - sin) / 2,
    )
    first_x, first_y = (math.floor(value * 65536 + 0.5) for value in (x, y))
    down, right = np.indices((side, side))
    columns = (first_x + along * right + across * down) >> 16
    rows = (first_y + math.floor(-sin * 65536 + 0.5) * right + along * down) >> 16
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    return np.where(inside, rows * side + columns, -1).reshape(-1).astype(np.int32)


def permutations(seed: int, tasks: int, pixels: int) -> np.ndarray:
    """Tasks that permute all pixels, each in another order: int32 `[tasks, pixels]`."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(pixels) for _ in range(tasks)]).astype(np.int32)


def rearranged(image: Array, places: Array) -> Array:
    """The image `[...]`, rearranged by a task to `[pixels]`, in the type of `image`; 0 is paper."""
    return jnp.where(places < 0, 0, image.reshape(-1)[places]).astype(image.dtype)


def task_after_task(
    x: np.ndarray,
    y: np.ndarray,
    places: np.ndarray,
    *,
    examples: int,
    classes: int | None = None,
) -> Partial:
    """Stream of `tasks * examples` examples, one per step: all of task 0, then all of task 1, ...

    Each task draws its examples from the same images, without replacement. The run key decides the
    choice and the order.

    Args:
        x: images `[n, ...]`, kept on the device once, in their type.
        y: labels `[n]`, integers from 0.
        places: `[tasks, pixels]`, see the module docstring.
        examples: examples per task.
        classes: the number of the net's outputs, if known: labels are in `[0, classes)`.

    Returns:
        A `jaxdl.train.loop.Stream` of examples with x `[pixels]` in the type of the images.

    Raises:
        InputError: for another number or kind of labels, or fewer images than `examples`.
    """
    y = check_labels(y, len(x), classes=classes)
    if not 0 < examples <= len(x):
        raise InputError(
            f"{len(x)} images do not give {examples} examples per task. Choose 1 to {len(x)}"
        )

    def draw(
        x: Array, y: Array, places: Array, key: Key, step: Array, shard: Shard = WHOLE
    ) -> Example:
        del shard  # a single example cannot be divided among devices
        task = step // examples
        row = shuffled(key, task, step % examples, len(x))
        return Example(rearranged(x[row], places[task]), y[row], task)

    return Partial(draw, jnp.asarray(x), jnp.asarray(y), jnp.asarray(places))
