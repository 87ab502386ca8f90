"""N-way K-shot episodes, drawn on the device from any labelled images.

Vinyals et al. 2016, https://arxiv.org/abs/1606.04080.
"""

from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Integer, Shaped, UInt

from jaxdl.data.labels import check_labels
from jaxdl.data.pixels import check_images, white
from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Episode, Key, Sampler

Rotations = Literal["none", "augment", "classes"]


class _Table(NamedTuple):
    """Examples sorted by class: class c has the rows `starts[c]` to `starts[c] + counts[c]`."""

    images: Shaped[Array, "examples ..."]
    starts: Int[Array, " classes"]
    counts: Int[Array, " classes"]


def few_shot(
    images: Any,
    labels: Any,
    *,
    ways: int,
    shots: int,
    queries: int,
    rotations: Rotations = "none",
    scale: float | None = None,
) -> Sampler:
    """Sampler of `ways`-way episodes with `shots` support and `queries` query examples per class.

    Classes are drawn without replacement and in random order, so label i means another class in
    each episode. Examples are drawn without replacement, so support and query are disjoint. In both
    parts, x is float32 `[ways * shots or queries, *trailing]`, and y is int32. The rows are in
    order of their labels: 0, 0, ..., 1, 1, ..., ways - 1.

    >>> import jaxdl, jax, numpy as np
    >>> images = np.arange(12.0)[:, None]  # 3 classes of 4 "images", each its own row number
    >>> sample = jaxdl.few_shot(images, np.arange(12) // 4, ways=2, shots=1, queries=3)
    >>> support, query = jax.jit(sample)(jax.random.key(0))
    >>> support.x.shape, support.y.tolist(), query.y.tolist()
    ((2, 1), [0, 1], [0, 0, 0, 1, 1, 1])
    >>> len({*support.x.ravel().tolist(), *query.x.ravel().tolist()})  # no image comes twice
    8

    Args:
        images: `[N, ...]`, uint8 or float. The device keeps them in their type; only drawn images
            become float32.
        labels: `[N]`, integers from 0, with or without gaps. Classes may have unequal numbers of
            examples, but each needs at least `shots + queries`.
        rotations: rotations by multiples of 90 degrees, for images `[N, H, H, ...]`.
            "augment" rotates all examples of a sampled class by one random angle (MAML).
            "classes" makes four classes of each class, one per angle. Two of them may occur in one
            episode (ProtoNet, https://arxiv.org/abs/1703.05175).
        scale: x = images * scale; by default 1 / 255 for uint8, to `[0, 1]`, and 1 for floats.

    Returns:
        A `jax.tree_util.Partial` that carries the data set. Pass it to a jitted function as an
        argument.

    Raises:
        InputError: if the data have other shapes, or too few classes or examples.
    """
    _check_counts(ways=ways, shots=shots, queries=queries)
    images = check_images(images)
    labels = check_labels(labels, len(images))
    _check_rotations(images, rotations)
    names, counts = np.unique(labels, return_counts=True)
    _check_enough(names, counts, ways, shots, queries, rotations)

    points = shots + queries
    classes = len(names) * (4 if rotations == "classes" else 1)
    if scale is None:
        scale = 1 / white(images)

    def draw(table: _Table, key: Key) -> Episode:
        # One threefry call draws all random bits of the episode.
        class_bits, turn_bits, *example_bits = jax.random.bits(key, (2 + points, ways))
        sampled = without_replacement(class_bits, classes)
        turns = (turn_bits % 4).astype(jnp.int32)
        if rotations == "classes":
            sampled, turns = sampled // 4, sampled % 4
        examples = jax.vmap(without_replacement)(
            jnp.stack(example_bits, axis=1), table.counts[sampled]
        )
        rows = table.starts[sampled][:, None] + examples
        # The rows are in bounds by construction; a check would slow the gather by a third.
        x = table.images.at[rows].get(mode="promise_in_bounds")
        if rotations != "none":
            x = jax.vmap(_rotate)(x, turns)
        x = x.astype(jnp.float32) * scale
        return Episode(_by_class(x[:, :shots]), _by_class(x[:, shots:]))

    order = np.argsort(labels, kind="stable")
    table = _Table(
        images=jnp.asarray(images[order]),
        starts=jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        counts=jnp.asarray(counts, jnp.int32),
    )
    return jax.tree_util.Partial(draw, table)


def without_replacement(bits: UInt[Array, " k"], n: Integer[Array, ""] | int) -> Int[Array, " k"]:
    """The first k entries of a random permutation of `range(n)`, int32 `[k]`, in O(k^2) for any n.

    `bits` are k random uint32. `n >= k` may be traced. Each ordered choice has the same
    probability, up to a relative error of n / 2**32.
    """
    # Fisher-Yates: step i swaps place i with place j[i] >= i, and returns the old entry of j[i].
    # Place p holds p until an earlier step i' with j[i'] = p moves the entry of place i' there. So
    # the answer is at the end of a chain of earlier steps. Pointer doubling finds that end, and no
    # array of n places is needed.
    steps = jnp.arange(bits.shape[0], dtype=jnp.int32)
    j = steps + (bits % jnp.asarray(n - steps, jnp.uint32)).astype(jnp.int32)

    def last_swap_into(places: Int[Array, " k"]) -> Int[Array, " k"]:
        """Before step i, the last step that swapped something into places[i]; -1 for none."""
        swapped = (j[None, :] == places[:, None]) & (steps[None, :] < steps[:, None])
        return jnp.max(jnp.where(swapped, steps[None, :], -1), axis=1)

    origin = last_swap_into(steps)
    origin = jnp.where(origin < 0, steps, origin)
    for _ in range((bits.shape[0] - 1).bit_length()):
        origin = origin[origin]
    swap = last_swap_into(j)
    return jnp.where(swap < 0, j, origin[swap])


def _rotate(
    images: Shaped[Array, "n h h *rest"], turns: Int[Array, ""]
) -> Shaped[Array, "n h h *rest"]:
    """Images `[n, H, H, ...]`, rotated anticlockwise by `turns` (a scalar in 0..3) right angles."""
    rotated: Array = jax.lax.switch(
        turns, [partial(jnp.rot90, k=k, axes=(1, 2)) for k in range(4)], images
    )
    return rotated


def _by_class(x: Shaped[Array, "ways n ..."]) -> Batch:
    """Examples `[ways, n, ...]` as a flat batch; the label is the class index."""
    ways, n = x.shape[:2]
    return Batch(
        x.reshape(ways * n, *x.shape[2:]), jnp.repeat(jnp.arange(ways, dtype=jnp.int32), n)
    )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise InputError(f"{name}={count} must be a whole number of at least 1. Choose one")


def _check_rotations(images: np.ndarray, rotations: str) -> None:
    if rotations not in ("none", "augment", "classes"):
        raise InputError(f'rotations="{rotations}" is not one of "none", "augment", "classes"')
    if rotations != "none" and (images.ndim < 3 or images.shape[1] != images.shape[2]):
        raise InputError(
            f'rotations="{rotations}" needs square images [N, H, H, ...], but their shape is'
            f' {list(images.shape)}. Choose rotations="none" for others'
        )


def _check_enough(
    names: np.ndarray, counts: np.ndarray, ways: int, shots: int, queries: int, rotations: str
) -> None:
    classes = len(names) * (4 if rotations == "classes" else 1)
    if ways > classes:
        raise InputError(f"ways={ways}, but there are only {classes} classes. Choose fewer ways")
    smallest = int(np.argmin(counts))
    if shots + queries > counts[smallest]:
        raise InputError(
            f"shots={shots} and queries={queries} need {shots + queries} examples per class, but"
            f" class {names[smallest]} has only {counts[smallest]}. Choose fewer of them"
        )
