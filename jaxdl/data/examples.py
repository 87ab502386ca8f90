"""Single labelled examples drawn on the device, for training without tasks."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdl.data.inputs import as_inputs, check_inputs, check_scale
from jaxdl.data.labels import check_labels
from jaxdl.data.pixels import check_images
from jaxdl.grads import leading_axis
from jaxdl.types import Array, Batch, Key, PyTree, Sampler


def examples(
    images: PyTree, labels: Any, *, scale: float | None = None, classes: int | None = None
) -> Sampler:
    """Sampler of one example at a time, uniform and with replacement.

    >>> import jaxdl, jax, numpy as np
    >>> images = np.array([[0, 0], [255, 255]], np.uint8)  # a black one and a white one
    >>> sample = jaxdl.examples(images, labels=[0, 1])
    >>> batch = jax.jit(jaxdl.task_stream(sample, 32))(jax.random.key(0), 0)
    >>> batch.x.shape, batch.x[:, 0].tolist() == batch.y.tolist()
    ((32, 2), True)

    Args:
        images: one array `[n, ...]`, uint8 or float; or a dict or tuple of arrays, by the rule of
            `few_shot`. There uint8 and floats become float32, and other integers, such as tokens,
            become int32 and keep their values. The device keeps bytes as bytes; only drawn ones
            become float32.
        labels: `[n]`, integers from 0.
        scale: bytes and floats are multiplied by it; by default by 1 / 255 for uint8, to `[0, 1]`,
            and by 1 for floats.
        classes: the number of the net's outputs, if known: labels are in `[0, classes)`.

    Returns:
        `key -> Batch(x [...], y int32 scalar)`; `train.task_stream` stacks draws into batches.

    Raises:
        InputError: if images or labels have other types, shapes or values, or there are none.
    """
    # A lone array of other integers is one of images that somebody has cast, and no tokens.
    images = check_inputs(images if isinstance(images, dict | tuple) else check_images(images))
    check_scale(images, scale)
    rows = leading_axis(images)
    labels = check_labels(labels, rows, classes=classes)

    def draw(images: PyTree, labels: Array, key: Key) -> Batch:
        row = jax.random.randint(key, (), 0, rows)
        return Batch(as_inputs(jax.tree.map(lambda leaf: leaf[row], images), scale), labels[row])

    return Partial(draw, jax.tree.map(jnp.asarray, images), jnp.asarray(labels))
