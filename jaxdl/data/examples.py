"""Single labelled examples drawn on the device, for training without tasks."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdl.data.labels import check_labels
from jaxdl.data.pixels import check_images, white
from jaxdl.types import Array, Batch, Key, Sampler


def examples(
    images: Any, labels: Any, *, scale: float | None = None, classes: int | None = None
) -> Sampler:
    """Sampler of one example at a time, uniform and with replacement.

    >>> import jaxdl, jax, numpy as np
    >>> images = np.array([[0, 0], [255, 255]], np.uint8)  # a black one and a white one
    >>> sample = jaxdl.examples(images, labels=[0, 1])
    >>> batch = jax.jit(jaxdl.task_stream(sample, 32))(jax.random.key(0), 0)
    >>> batch.x.shape, batch.x[:, 0].tolist() == batch.y.tolist()
    ((32, 2), True)

    Args:
        images: `[n, ...]`, uint8 or float. The device keeps them in their type; only drawn images
            become float32.
        labels: `[n]`, integers from 0.
        scale: x = images * scale; by default 1 / 255 for uint8, to `[0, 1]`, and 1 for floats.
        classes: the number of the net's outputs, if known: labels are in `[0, classes)`.

    Returns:
        `key -> Batch(x [...], y int32 scalar)`; `train.task_stream` stacks draws into batches.

    Raises:
        InputError: if images or labels have other types, shapes or values, or there are none.
    """
    images = check_images(images)
    labels = check_labels(labels, len(images), classes=classes)
    rows = len(images)
    if scale is None:
        scale = 1 / white(images)

    def draw(images: Array, labels: Array, key: Key) -> Batch:
        row = jax.random.randint(key, (), 0, rows)
        return Batch(images[row].astype(jnp.float32) * scale, labels[row])

    return Partial(draw, jnp.asarray(images), jnp.asarray(labels))
