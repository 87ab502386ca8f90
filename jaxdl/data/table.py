"""Labelled examples sorted by class, and draws from them without replacement."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped, UInt

from jaxdl.data.inputs import check_inputs, check_scale
from jaxdl.data.labels import name_classes
from jaxdl.errors import InputError
from jaxdl.types import Array, PyTree


class Table(NamedTuple):
    """Examples sorted by class: class c has the rows `starts[c]` to `starts[c] + counts[c]`.

    Where batches are padded, there is one more row, `padding`. It repeats an example, so that no
    net meets an input that is none, such as a sentence of length 0. Its weight is 0.
    `weights` is None if every example counts once, and nothing is padded.
    """

    x: PyTree
    starts: Int[Array, " classes"]
    counts: Int[Array, " classes"]
    weights: Float[Array, " rows"] | None = None

    @property
    def padding(self) -> int:
        """The row that stands for no example."""
        return jax.tree.leaves(self.x)[0].shape[0] - 1


class Examples(NamedTuple):
    """Checked examples on the host: inputs, class names, the class of each example, loss weights.

    `sizes` says how many examples each class has. Those of weight 0 are none.
    """

    x: PyTree
    names: Shaped[np.ndarray, " classes"]
    places: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"] | None
    sizes: Int[np.ndarray, " classes"]


def check_examples(x: PyTree, labels: Any, weights: Any, scale: float | None) -> Examples:
    """Checks labelled examples that a user gives.

    Raises:
        InputError: as `check_inputs`, `check_scale` and `name_classes`, or if weights are not
            `[n]`, negative, not finite, or all 0.
    """
    x = check_inputs(x)
    check_scale(x, scale)
    names, places = name_classes(labels, len(jax.tree.leaves(x)[0]))
    if weights is None:
        return Examples(x, names, places, None, np.bincount(places))
    weights = _check_weights(weights, len(places))
    sizes = np.bincount(places[weights > 0], minlength=len(names))
    return Examples(x, names, places, weights, sizes)


def sorted_table(examples: Examples, kept: Int[np.ndarray, " kept"], *, padded: bool) -> Table:
    """The table of the classes `kept`, ascending, without examples of weight 0.

    Args:
        padded: whether there is a row for padding.
    """
    x, _, places, weights, sizes = examples
    order = np.argsort(places, kind="stable")
    order = order[np.isin(places[order], kept)]
    if weights is not None:
        order = order[weights[order] > 0]
    elif padded:
        weights = np.ones(len(places), np.float32)
    counts = sizes[kept]

    last = order[:1] if padded else order[:0]

    def stored(leaf: np.ndarray) -> Array:
        return jnp.asarray(leaf[np.concatenate([order, last])])

    return Table(
        jax.tree.map(stored, x),
        jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
        None if weights is None else jnp.asarray(np.append(weights[order], 0 * weights[last])),
    )


def _check_weights(weights: Any, examples: int) -> Float[np.ndarray, " n"]:
    found = np.asarray(weights)
    if found.shape != (examples,) or found.dtype.kind not in "biuf":
        raise InputError(
            f"weights are {found.dtype} {list(found.shape)}, but there are {examples} examples."
            " Give one number per example, [n]"
        )
    found = found.astype(np.float32)
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise InputError(
            "weights must be finite and not negative, and one must be larger than 0. Correct them"
        )
    return found


def at_rows(
    table: Table, rows: Int[Array, "*shape"]
) -> tuple[PyTree, Float[Array, "*shape"] | None]:
    """The stored examples at these rows, which are in bounds, and their weights."""
    # A check of the bounds would slow the gather by a third.
    take = lambda leaf: leaf.at[rows].get(mode="promise_in_bounds")  # noqa: E731
    return jax.tree.map(take, table.x), jax.tree.map(take, table.weights)


def without_replacement(bits: UInt[Array, " k"], n: Integer[Array, ""] | int) -> Int[Array, " k"]:
    """The first k entries of a random permutation of `range(n)`, int32 `[k]`, in O(k^2) for any n.

    `bits` are k random uint32. `n` may be traced. If it is smaller than k, entry i >= n is i. Each
    ordered choice has the same probability, up to a relative error of n / 2**32.
    """
    steps = jnp.arange(bits.shape[0], dtype=jnp.int32)
    others = steps + below(bits, n - steps)
    swapped, origin = origins(steps, others)
    return jnp.where(swapped, origin, others)


def below(bits: UInt[Array, "*shape"], n: Integer[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Random int32 in `[0, n)` by random uint32; 0 where n is less than 1."""
    return (bits % jnp.maximum(n, 1).astype(jnp.uint32)).astype(jnp.int32)


def origins(
    places: Int[Array, " k"], others: Int[Array, " k"]
) -> tuple[Bool[Array, " k"], Int[Array, " k"]]:
    """Where the entries come from that k steps of a Fisher-Yates shuffle draw, in O(k^2).

    Place p holds p at first. Step i swaps the entries of `places[i]` and `others[i]`, and draws
    the old entry of `others[i]`. No step uses the place of an earlier one.

    Returns:
        Whether the entry was swapped into `others[i]` before, and the step whose place held it at
        first, int32. The step means nothing for an entry that was not.
    """
    # Place p holds p until an earlier step i' with others[i'] = p moves the entry of places[i']
    # there. So the answer is at the end of a chain of earlier steps. Pointer doubling finds that
    # end, and no array of all places is needed.
    steps = jnp.arange(places.shape[0], dtype=jnp.int32)

    def last_swap_into(at: Int[Array, " k"]) -> Int[Array, " k"]:
        """Before step i, the last step that swapped something into at[i]; -1 for none."""
        swapped = (others[None, :] == at[:, None]) & (steps[None, :] < steps[:, None])
        return jnp.max(jnp.where(swapped, steps[None, :], -1), axis=1)

    origin = last_swap_into(places)
    origin = jnp.where(origin < 0, steps, origin)
    for _ in range((places.shape[0] - 1).bit_length()):
        origin = origin[origin]
    swap = last_swap_into(others)
    return swap >= 0, origin[swap]
