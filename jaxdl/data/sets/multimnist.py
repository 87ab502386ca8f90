"""MultiMNIST: two digits on one canvas, overlaid on the device, each of them a task to name.

In the manner of Sabour et al. 2017 (arXiv:1710.09829), with the two tasks of Sener, Koltun 2018
(arXiv:1810.04650): one image lies at the top left of the canvas, the other at the bottom right,
`offset` pixels lower and further right. Images of 28x28 and the usual offset of 8 make a canvas of
36x36, in which 20x20 pixels belong to both; of two values of ink the larger one is seen.

Differences from the papers: both digits are drawn independently, so that one pair in ten has the
same class twice (Sabour et al. take different ones); the offset is fixed (theirs is random, up to 4
pixels for each digit), and the canvas stays as large as it is (the code of Sener and Koltun has an
offset of 6 and shrinks the canvas to 28x28); pairs are made anew in each epoch and not stored.
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

    The larger of two values counts, and 0 is paper; any dtype.

    Raises:
        InputError: a negative offset, or images of different shapes.
    """
    if offset < 0 or left.shape != right.shape:
        raise InputError(
            f"overlay takes two images of one shape and an offset of 0 or more, not {left.shape},"
            f" {right.shape} and offset={offset}"
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
    """Stream of overlaid pairs in which each image comes once an epoch on each side.

    Both sides go through all images in an order of their own, as `data.epochs.epochs`, which see;
    the pairs of two epochs are different ones. Step i is a function of (run key, i).

    Args:
        x: images `[n, h, w, channels]`, kept on the device once, as they are.
        y: labels `[n]`, integers from 0.
        batch: pairs a step, over all devices.
        transform: makes a canvas `[h + offset, w + offset, channels]` what the net sees.
        offset: see the module docstring.
        classes: the outputs of each task, where they are known: labels are in `[0, classes)`.

    Returns:
        A `jaxdl.train.loop.Stream` of `Batch`es with labels int32 `[batch, 2]`: left and right.

    Raises:
        InputError: as `epochs`; a negative offset, when tracing.
    """
    y = check_labels(y, len(x), classes=classes)
    one_side = epochs(x, y, batch=batch, transform=lambda key, image: image)

    def draw(one_side: Partial, key: Key, step: Any, shard: Shard = WHOLE) -> Batch:
        # Both sides by one program, which compiles in half the time.
        sides = jax.vmap(lambda side: one_side(side, step, shard))(jax.random.split(key))
        canvases = jax.vmap(lambda a, b: transform(overlay(a, b, offset=offset)))(*sides.x)
        return Batch(canvases, sides.y.T)

    return Partial(draw, one_side)


def overlaid_pairs(
    key: Key, x: PyTree, y: PyTree, *, offset: int = OFFSET, classes: int | None = None
) -> tuple[Array, Array]:
    """A fixed set of pairs to judge on: each image once on each side, and never with itself.

    The pairs are drawn with `key`; pair i has image i on the left.

    Args:
        x: images `[n, h, w, channels]`, two at least.
        y: labels `[n]`, integers from 0.
        classes: as in `overlaid_epochs`.

    Returns:
        canvases `[n, h + offset, w + offset, channels]` and int32 labels `[n, 2]`.

    Raises:
        InputError: fewer than two images, not as many labels or other ones, or as `overlay`.
    """
    x, y = jnp.asarray(x), jnp.asarray(check_labels(y, len(x), classes=classes))
    if len(x) < 2:
        raise InputError("one image makes no pair: give two or more")
    # The next one on a circle through all images: nobody is its own neighbour.
    circle = jax.random.permutation(key, len(x))
    partner = jnp.zeros(len(x), jnp.int32).at[circle].set(jnp.roll(circle, 1))
    canvases = jax.vmap(lambda a, b: overlay(a, b, offset=offset))(x, x[partner])
    return canvases, jnp.stack([y, y[partner]], axis=1)
