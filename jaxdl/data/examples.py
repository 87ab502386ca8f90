"""Single labelled examples drawn on the device, for training without tasks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Key, Sampler


def examples(images: Any, labels: Any, *, scale: float = 1 / 255) -> Sampler:
    """Sampler of one example at a time, uniform and with replacement.

    Args:
        images: `[n, ...]`, kept on the device as they are; what is drawn becomes float32 times
            `scale`.
        labels: `[n]` ints.

    Returns:
        `key -> Batch(x [...], y int32 scalar)`; `train.task_stream` stacks draws into batches.

    Raises:
        InputError: if there are no examples, or not as many labels as images.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) == 0 or len(images) != len(labels):
        raise InputError(f"{len(images)} images and {len(labels)} labels make no data set")
    rows = len(images)

    def draw(images: Array, labels: Array, key: Key) -> Batch:
        row = jax.random.randint(key, (), 0, rows)
        return Batch(images[row].astype(jnp.float32) * scale, labels[row])

    return Partial(draw, jnp.asarray(images), jnp.asarray(labels, jnp.int32))
