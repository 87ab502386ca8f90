"""Epochs: every example once, in a new order each time, drawn inside the compiled program.

The order of an epoch is a function of (run key, epoch, place). So the batch of any step can be
computed alone. A stopped run goes on in the middle of an epoch, and no permutation is stored or
sorted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Int, Integer, Shaped, UInt

from jaxdl.data.inputs import check_fits
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Batch, Count, Key, PyTree, Shard

ROUNDS = 8
"""Rounds of the cipher. Four rounds are known to look random; more rounds cost little."""

Transform = Callable[[Key, Array], Any]
"""`(key, example) -> x`: turns one stored example into the net's input, augmentation included."""


class Visit(NamedTuple):
    """One visit to an example: the `epoch`, int32, and the example's `key`, equal in all epochs.

    It serves augmentation that depends on earlier epochs; see `alternating_flip`.
    """

    epoch: Count
    key: Shaped[Key, ""]


VisitTransform = Callable[[Key, Array, Visit], Any]
"""A `Transform` that also gets the visit."""


def epochs(
    x: PyTree,
    y: PyTree,
    *,
    batch: int,
    transform: Transform | VisitTransform,
    count: Array | int | None = None,
    visits: bool = False,
    classes: int | None = None,
) -> Partial:
    """Stream of batches that repeats the whole data set, epoch after epoch.

    A batch may cross the end of an epoch. So all batches are full, and each example comes exactly
    once per epoch. Step i holds places i * batch to (i + 1) * batch - 1 of the endless sequence.

    >>> import jaxdl, jax, numpy as np
    >>> images, labels = np.full((6, 8, 8, 1), 255, np.uint8), np.arange(6)
    >>> stream = jaxdl.epochs(images, labels, batch=3, transform=lambda key, image: image / 255)
    >>> draw, key = jax.jit(stream), jax.random.key(0)
    >>> first, second = draw(key, 0), draw(key, 1)
    >>> first.x.shape, float(first.x.max())
    ((3, 8, 8, 1), 1.0)
    >>> sorted(first.y.tolist() + second.y.tolist())  # two batches are one epoch
    [0, 1, 2, 3, 4, 5]

    Args:
        x: `[n, ...]`, kept on the device in their type (uint8 images, say).
        y: class labels, integers from 0, which become int32: `[n]`, or `[n, ...]` for several per
            example; or targets of a regression, floats `[n, features, ...]`.
        batch: examples per step, over all devices.
        transform: turns one stored example `[...]` into the net's input. Its key belongs to the
            place in the sequence, so any number of devices draws the same augmentation.
        count: only the first `count` examples, a number that may be traced; None for all.
        visits: whether `transform` also gets the `Visit`, as its third argument.
        classes: the number of the net's outputs, if known: y are labels in `[0, classes)`.

    Returns:
        A `jaxdl.Stream` of batches, which carries the data set as an argument.

    Raises:
        InputError: if there are no examples, if x and y differ in length, if an integer of x does
            not fit into 32 bits, if y has another type or a label out of range, if the batch is
            below 1, or if the count is not from 1 to n (a traced count is not checked).
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) == 0 or len(x) != len(y):
        raise InputError(
            f"{len(x) if x.ndim else 'no'} examples and {len(y) if y.ndim else 'no'} labels make no"
            " data set. Give one label per example"
        )
    if batch < 1:
        raise InputError(f"batch={batch} must be at least 1. Choose a larger batch")
    if not (count is None or isinstance(count, jax.core.Tracer) or 1 <= count <= len(x)):
        raise InputError(f"count={count} must be from 1 to the {len(x)} examples. Choose another")
    check_fits(x)
    y = _checked_targets(y, classes)

    def draw(
        x: Shaped[Array, "n ..."],
        y: Shaped[Array, "n ..."],
        count: Count,
        key: Key,
        step: Count,
        shard: Shard = WHOLE,
    ) -> Batch:
        order_key, augment_key = jax.random.split(key)
        places = shard.of(step * batch + jnp.arange(batch, dtype=jnp.int32))
        rows = jax.vmap(shuffled, (None, 0, 0, None))(
            order_key, places // count, places % count, count
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, places)
        seen: Any = jax.vmap(transform)
        if not visits:
            return Batch(seen(keys, x[rows]), y[rows])
        # A number that no place has, so that these keys differ from those of the places.
        own_key = jax.random.fold_in(augment_key, jnp.uint32(2**32 - 1))
        own_keys = jax.vmap(jax.random.fold_in, (None, 0))(own_key, rows)
        visit = Visit(places // count, own_keys)
        return Batch(seen(keys, x[rows], visit), y[rows])

    total = jnp.asarray(len(x) if count is None else count, jnp.int32)
    return Partial(draw, jnp.asarray(x), jnp.asarray(y), total)


def _checked_targets(y: np.ndarray, classes: int | None) -> np.ndarray:
    """Labels as int32; targets of a regression unchanged."""
    if classes is not None or not jnp.issubdtype(y.dtype, jnp.floating):
        # Some files hold [n, 1] by mistake for [n]: refuse it. Several labels are two or more.
        return check_labels(y, classes=classes, several=y.shape[1:] != (1,))
    if y.ndim == 1:
        raise InputError(
            f"y is {y.dtype} of shape [n]. Give class labels as integers, and the targets of a"
            " regression as [n, features], for example y[:, None]"
        )
    return y


def shuffled(
    key: Key,
    epoch: Integer[Array, ""] | int,
    place: Integer[Array, ""] | int,
    count: Integer[Array, ""] | int,
) -> Int[Array, ""]:
    """The index in `range(count)` of an epoch's example at `place`: int32; all may be traced.

    For a fixed key and epoch it is a permutation of `range(count)`, computed without a list. A
    Feistel cipher permutes all numbers with the bits of `count - 1`. A result outside the range is
    ciphered again until it is inside (cycle walking; Black, Rogaway 2002).

    Each example comes at each place equally often, and each pair at each pair of places. With fewer
    than about eight examples, some orders are likelier than others, because with so few bits a
    Feistel network cannot make all permutations equally often.
    """
    # The epoch is hashed, not folded in. So the random bits are constant in a run, and XLA draws
    # them once. Drawing them at each step would cost as much as a small net's update.
    keys = _hash(jnp.asarray(epoch, jnp.uint32), jax.random.bits(key, (ROUNDS,)))
    count = jnp.asarray(count, jnp.uint32)
    bits = jnp.maximum(32 - lax.clz(count - 1), 2).astype(jnp.uint32)
    inside = _cipher(keys, jnp.asarray(place, jnp.uint32), bits)
    found = lax.while_loop(lambda n: n >= count, lambda n: _cipher(keys, n, bits), inside)
    return found.astype(jnp.int32)


def _cipher(
    keys: UInt[Array, " rounds"], number: UInt[Array, ""], bits: UInt[Array, ""]
) -> UInt[Array, ""]:
    """A permutation of the numbers of `bits` bits, by an unbalanced Feistel network.

    The number has two parts. Each round replaces (left, right) by (right, left xor hash(right)).
    The widths are swapped with the parts; after an even number of rounds they are as before.
    """
    right_bits = bits // 2
    left_bits = bits - right_bits
    left, right = number >> right_bits, number & _ones(right_bits)
    for round_key in keys:
        left, right = right, left ^ (_hash(right, round_key) & _ones(left_bits))
        left_bits, right_bits = right_bits, left_bits
    return (left << right_bits) | right


def _ones(bits: UInt[Array, ""]) -> UInt[Array, ""]:
    return (jnp.uint32(1) << bits) - 1


def _hash(number: UInt[Array, ""], key: UInt[Array, "*n"]) -> UInt[Array, "*n"]:
    """A hash of all bits of both numbers (the finaliser of MurmurHash3)."""
    number = (number ^ key) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> 13)) * jnp.uint32(0xC2B2AE35)
    number = number ^ (number >> 16)
    return number + key
