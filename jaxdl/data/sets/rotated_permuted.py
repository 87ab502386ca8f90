"""Streams of tasks for continual learning: MNIST Rotations and Permutations, made on the device.

A task is a rearrangement of pixels, `places` `[pixels]`: where in the image each pixel of the new
one comes from, or -1 for paper. The images stay as they are, once for all tasks. Rotations are
those of Pillow's `rotate` with its default, the nearest pixel, bit for bit; one angle is drawn from
each of so many equal parts of a range, as in the code of GEM (https://arxiv.org/abs/1706.08840).
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
    """Images of `side` x `side` pixels turned anticlockwise, by a fixed angle in each task.

    Returns:
        places: int32 `[tasks, pixels]`.
        angles: float64 `[tasks]`, that of task t between `t / tasks` and `(t + 1) / tasks` of
            `degrees`.
    """
    parts = np.arange(tasks) + np.random.default_rng(seed).random(tasks)
    angles = parts * (degrees / tasks)
    return np.stack([turned(angle, side) for angle in angles]), angles


def turned(angle: float, side: int) -> np.ndarray:
    """The places `[side * side]` of an image turned anticlockwise by so many degrees.

    In whole numbers of 1/65536 of a pixel, as Pillow counts, so that ties fall as there.
    """
    cos, sin = (round(f(-math.radians(angle)), 15) for f in (math.cos, math.sin))
    along, across = (math.floor(value * 65536 + 0.5) for value in (cos, sin))
    middle = side / 2
    # Where the centre of the first pixel comes from.
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
    """Another order of all pixels in each task: int32 `[tasks, pixels]`."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(pixels) for _ in range(tasks)]).astype(np.int32)


def rearranged(image: Array, places: Array) -> Array:
    """An image as a task shows it, `[pixels]`, in the type of `image` `[...]`; 0 is paper."""
    return jnp.where(places < 0, 0, image.reshape(-1)[places]).astype(image.dtype)


def task_after_task(
    x: np.ndarray,
    y: np.ndarray,
    places: np.ndarray,
    *,
    examples: int,
    classes: int | None = None,
) -> Partial:
    """Stream of `tasks * examples` examples, one a step: first all of task 0, then those of task 1.

    Each task draws its examples anew from the same images, none of them twice; which, and in what
    order, depends on the run key.

    Args:
        x: images `[n, ...]`, kept on the device once, as they are.
        y: labels `[n]`, integers from 0.
        places: `[tasks, pixels]`, see the module docstring.
        examples: of each task.
        classes: the net's outputs, where they are known: labels are in `[0, classes)`.

    Returns:
        A `jaxdl.train.loop.Stream` of `Example`s with x `[pixels]` in the type of the images.

    Raises:
        InputError: not as many labels as images or other ones, or fewer images than `examples`.
    """
    y = check_labels(y, len(x), classes=classes)
    if not 0 < examples <= len(x):
        raise InputError(f"{len(x)} images do not give {examples} examples of each task")

    def draw(
        x: Array, y: Array, places: Array, key: Key, step: Array, shard: Shard = WHOLE
    ) -> Example:
        del shard  # one example is one device's work
        task = step // examples
        row = shuffled(key, task, step % examples, len(x))
        return Example(rearranged(x[row], places[task]), y[row], task)

    return Partial(draw, jnp.asarray(x), jnp.asarray(y), jnp.asarray(places))
