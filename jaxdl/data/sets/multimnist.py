"""MultiMNIST: two digits on one canvas, overlaid on the device; each digit is a task.

The data follow Sabour et al. 2017 (arXiv:1710.09829), the two tasks Sener, Koltun 2018
(arXiv:1810.04650). One image is at the top left of the canvas, the other at the bottom right,
`offset` pixels lower and further right. Images of 28x28 and the usual offset of 8 make a canvas of
36x36, and 20x20 pixels belong to both. There, the larger of the two ink values counts.

Differences from the papers:

- Both digits are drawn independently, so one pair in ten has the same class twice. Sabour et al.
  take different classes.
- The offset is fixed. Sabour et al. draw it at random, up to 4 pixels for each digit.
- The canvas keeps its size. The code of Sener and Koltun has an offset of 6 and shrinks the canvas
  to 28x28.
- Each epoch makes new pairs; they are not stored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdl.data.epochs import epochs
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Batch, Key, PyTree, Shard

OFFSET = 8


def overlay(left: Array, right: Array, *, offset: int = OFFSET) -> Array:
    """One canvas `[h + offset, w + offset, channels]` of two images `[h, w, channels]`.

    The larger of two values counts, and 0 is paper. Any dtype works.

    Raises:
        InputError: for a negative offset, or images of different shapes.
    """
    if offset < 0 or left.shape != right.shape:
        raise InputError(
            f"overlay got the shapes {left.shape}, {right.shape} and offset={offset}. Give two"
            " images of one shape and an offset of 0 or more"
        )
    first, second = (0, offset), (offset, 0)
    return jnp.maximum(
        jnp.pad(left, (first, first, (0, 0))), jnp.pad(right, (second, second, (0, 0)))
    )


def overlaid_epochs(
    x: PyTree,
    y: PyTree,
    *,
    batch: int,
    transform: Callable[[Array], Any],
    offset: int = OFFSET,
    classes: int | None = None,
) -> Partial:
    """Stream of overlaid pairs, in which each image comes once per epoch on each side.

    Each side goes through all images in an order of its own; see `data.epochs.epochs`. Each epoch
    has other pairs. Step i is a function of (run key, i).

    Args:
        x: images `[n, h, w, channels]`, kept on the device once, in their type.
        y: labels `[n]`, integers from 0.
        batch: pairs per step, over all devices.
        transform: turns a canvas `[h + offset, w + offset, channels]` into the net's input.
        offset: see the module docstring.
        classes: the number of outputs of each task, if known: labels are in `[0, classes)`.

    Returns:
        A `jaxdl.train.loop.Stream` of batches with labels int32 `[batch, 2]`: left and right.

    Raises:
        InputError: as `epochs`; at tracing, for a negative offset.
    """
    y = check_labels(y, len(x), classes=classes)
    one_side = epochs(x, y, batch=batch, transform=lambda key, image: image)

    def draw(one_side: Partial, key: Key, step: Any, shard: Shard = WHOLE) -> Batch:
        # One vmapped program for both sides compiles in half the time.
        sides = jax.vmap(lambda side: one_side(side, step, shard))(jax.random.split(key))
        canvases = jax.vmap(lambda a, b: transform(overlay(a, b, offset=offset)))(*sides.x)
        return Batch(canvases, sides.y.T)

    return Partial(draw, one_side)


def overlaid_pairs(
    key: Key, x: PyTree, y: PyTree, *, offset: int = OFFSET, classes: int | None = None
) -> tuple[Array, Array]:
    """A fixed set of pairs for evaluation: each image once on each side, and never with itself.

    The pairs are drawn with `key`. Pair i has image i on the left.

    Args:
        x: images `[n, h, w, channels]`, at least two.
        y: labels `[n]`, integers from 0.
        classes: as in `overlaid_epochs`.

    Returns:
        canvases `[n, h + offset, w + offset, channels]` and int32 labels `[n, 2]`.

    Raises:
        InputError: for fewer than two images, for another number or kind of labels, or as
            `overlay`.
    """
    x, y = jnp.asarray(x), jnp.asarray(check_labels(y, len(x), classes=classes))
    if len(x) < 2:
        raise InputError("one image makes no pair. Give two or more")
    # The partner is the next image on a random circle, so no image is its own partner.
    circle = jax.random.permutation(key, len(x))
    partner = jnp.zeros(len(x), jnp.int32).at[circle].set(jnp.roll(circle, 1))
    canvases = jax.vmap(lambda a, b: overlay(a, b, offset=offset))(x, x[partner])
    return canvases, jnp.stack([y, y[partner]], axis=1)
