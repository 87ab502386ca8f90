"""N-way K-shot episodes, drawn on the device from any labelled examples.

Vinyals et al. 2016, https://arxiv.org/abs/1606.04080.
"""

import warnings
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt

from jaxdl.data.inputs import as_inputs
from jaxdl.data.ranges import Asked, Range, check_range, divide
from jaxdl.data.table import Table, at_rows, check_examples, sorted_table, without_replacement
from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Episode, Key, PyTree, Sampler

Rotations = Literal["none", "augment", "classes"]


def few_shot(
    x: PyTree = None,
    labels: Any = None,
    *,
    ways: Range,
    shots: Range,
    queries: Range,
    rotations: Rotations = "none",
    scale: float | None = None,
    weights: Any = None,
    images: Any = None,
) -> Sampler:
    """Sampler of `ways`-way episodes with `shots` support and `queries` query examples per class.

    Classes are drawn without replacement and in random order, so label i means another class in
    each episode. Examples are drawn without replacement, so support and query are disjoint. In both
    parts, x has the leading axis `[ways * shots or queries]`, and y is int32. The rows are in order
    of their labels: 0, 0, ..., 1, 1, ..., ways - 1.

    >>> import jaxdl, jax, numpy as np
    >>> images = np.arange(12.0)[:, None]  # 3 classes of 4 "images", each its own row number
    >>> sample = jaxdl.few_shot(images, np.arange(12) // 4, ways=2, shots=1, queries=3)
    >>> support, query = jax.jit(sample)(jax.random.key(0))
    >>> support.x.shape, support.y.tolist(), query.y.tolist()
    ((2, 1), [0, 1], [0, 0, 0, 1, 1, 1])
    >>> len({*support.x.ravel().tolist(), *query.x.ravel().tolist()})  # no image comes twice
    8

    **Ranges.** `ways`, `shots` and `queries` may each be a pair, the fewest and the most. Each
    episode then draws its own numbers, uniformly. Batches are padded to the most of them, because
    all episodes of a program have one shape. Padding has weight 0, an example of the data as x, and
    the label of its place. A learner with a head needs an output for each of the most ways. It
    learns from the support set that the last ones do not occur. `protonet` gives absent classes the
    logit -inf.

    >>> sample = jaxdl.few_shot(images, np.arange(12) // 4, ways=2, shots=(1, 2), queries=1)
    >>> support, _ = jax.jit(sample)(jax.random.key(2))
    >>> support.y.tolist(), support.weight.tolist()  # this episode has 1 shot
    ([0, 0, 1, 1], [1.0, 0.0, 1.0, 0.0])

    **Unequal classes.** A class with fewer than `min(shots) + 1` examples is left out, and a
    warning names it. A class of `size` examples, fewer than `shots + queries`, gives fewer of both:
    `size * shots / (shots + queries)` support examples, rounded half up, and the others as queries,
    with at least one in each. Batches then are padded, with weights. If `shots` and `queries` are
    plain numbers, a warning names such classes too. Batches have no weights (None) if all numbers
    are plain, no class is too small, and there are no `weights`.

    Args:
        x: arrays `[N, ...]`: one, or a dict or tuple of them (a list is one array). Each follows
            this rule by itself: uint8 becomes float32 in `[0, 1]`, and floats become float32. Other
            integers, such as tokens, become int32 and keep their values. Bools stay bools. The
            device keeps bytes as bytes; only drawn examples become float32.
        labels: `[N]`, strings, or integers from 0, with or without gaps.
        ways: classes per episode. The most of a range may exceed the number of classes: the range
            then ends there.
        shots: support examples per class.
        queries: query examples per class.
        rotations: rotations by multiples of 90 degrees, for images `[N, H, H, ...]`.
            "augment" rotates all examples of a sampled class by one random angle (MAML).
            "classes" makes four classes of each class, one per angle. Two of them may occur in one
            episode (ProtoNet, https://arxiv.org/abs/1703.05175).
        scale: bytes and floats are multiplied by it; by default by 1 / 255 for uint8, and by 1 for
            floats.
        weights: `[N]`, how much each example counts in a loss. An example of weight 0 is never
            drawn; else weights do not decide what is drawn. None: all count once.
        images: the name of `x` in earlier versions.

    Returns:
        A `jax.tree_util.Partial` that carries the data set. Pass it to a jitted function as an
        argument.

    Raises:
        InputError: if the data have other shapes or types, or too few classes or examples.
    """
    examples = check_examples(x if images is None else _renamed(images), labels, weights, scale)
    _check_rotations(examples.x, rotations)
    asked = Asked(
        check_range("ways", ways), check_range("shots", shots), check_range("queries", queries)
    )
    kept = np.flatnonzero(examples.sizes >= asked.least)
    sizes, angles = examples.sizes[kept], 4 if rotations == "classes" else 1
    classes = len(kept) * angles
    asked = asked.of_classes(classes, total=len(examples.names) * angles)
    for line in asked.warnings(examples.names, examples.sizes):
        warnings.warn(line, stacklevel=2)
    padded = asked.vary or bool(sizes.min() < asked.points)
    slots, points = asked.ways.most, min(asked.points, int(sizes.max()))

    def draw(table: Table, key: Key) -> Episode:
        # One threefry call draws all random bits of the episode.
        bits = jax.random.bits(key, (3 * padded + (2 + points) * slots,))
        class_bits, turn_bits, *example_bits = bits[3 * padded :].reshape(2 + points, slots)
        sampled = without_replacement(class_bits, classes)
        turns = (turn_bits % 4).astype(jnp.int32)
        if rotations == "classes":
            sampled, turns = sampled // 4, sampled % 4
        sizes = table.counts[sampled]
        examples = jax.vmap(without_replacement)(jnp.stack(example_bits, axis=1), sizes)
        rows = table.starts[sampled][:, None] + examples
        if padded:
            rows = _pad(rows, sizes, asked, bits[:3], table.padding)
        x, weight = at_rows(table, rows)
        if rotations != "none":
            x = jax.vmap(_rotate)(x, turns)
        x = as_inputs(x, scale)
        return Episode(
            _by_class(x, weight, slice(asked.shots.most)),
            _by_class(x, weight, slice(asked.shots.most, None)),
        )

    return jax.tree_util.Partial(draw, sorted_table(examples, kept, padded=padded))


def _pad(
    rows: Int[Array, "ways points"],
    sizes: Int[Array, " ways"],
    asked: Asked,
    bits: UInt[Array, "3"],
    padding: int,
) -> Int[Array, "ways asked"]:
    """Rows of the most shots and the most queries of each class: `padding` where there are fewer.

    `bits` decide how many ways, shots and queries this episode has; `sizes` are of its classes.
    """
    ways, shots, queries = (of.draw(bits[i]) for i, of in enumerate(asked))
    support, query = divide(sizes, shots, queries)
    present = jnp.arange(len(sizes)) < ways
    support, query = (jnp.where(present, counts, 0)[:, None] for counts in (support, query))
    left, right = (jnp.arange(of.most)[None, :] for of in (asked.shots, asked.queries))
    # The queries come right after the support examples: there are no others in a small class.
    places = jnp.concatenate([jnp.broadcast_to(left, (len(rows), left.size)), support + right], 1)
    taken = jnp.concatenate([left < support, right < query], axis=1)
    return jnp.where(taken, jnp.take_along_axis(rows, places, axis=1, mode="clip"), padding)


def _rotate(
    images: Shaped[Array, "n h h *rest"], turns: Int[Array, ""]
) -> Shaped[Array, "n h h *rest"]:
    """Images `[n, H, H, ...]`, rotated anticlockwise by `turns` (a scalar in 0..3) right angles."""
    rotated: Array = jax.lax.switch(
        turns, [partial(jnp.rot90, k=k, axes=(1, 2)) for k in range(4)], images
    )
    return rotated


def _by_class(x: PyTree, weight: Float[Array, "ways n"] | None, part: slice) -> Batch:
    """A part of the examples `[ways, n, ...]` as a flat batch; the label is the class index."""
    x, weight = jax.tree.map(lambda leaf: leaf[:, part], (x, weight))
    ways, n = jax.tree.leaves(x)[0].shape[:2]
    x, weight = jax.tree.map(lambda leaf: leaf.reshape(ways * n, *leaf.shape[2:]), (x, weight))
    return Batch(x, jnp.repeat(jnp.arange(ways, dtype=jnp.int32), n), weight)


def _renamed(images: PyTree) -> PyTree:
    warnings.warn(
        "few_shot(images=...) is deprecated. Write few_shot(x=...)",
        DeprecationWarning,
        stacklevel=3,
    )
    return images


def _check_rotations(x: PyTree, rotations: str) -> None:
    if rotations not in ("none", "augment", "classes"):
        raise InputError(f'rotations="{rotations}" is not one of "none", "augment", "classes"')
    if rotations == "none":
        return
    if not isinstance(x, np.ndarray):
        raise InputError(
            f'rotations="{rotations}" turns images, but x is a structure of arrays. Choose'
            ' rotations="none", or give the images alone'
        )
    if x.ndim < 3 or x.shape[1] != x.shape[2]:
        raise InputError(
            f'rotations="{rotations}" needs square images [N, H, H, ...], but their shape is'
            f' {list(x.shape)}. Choose rotations="none" for others'
        )
