"""Episodes of various ways and unequal shots, as Meta-Dataset draws them.

Triantafillou et al. 2020, https://arxiv.org/abs/1903.03096, section 3.2 and appendix.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from jaxdl.data.inputs import as_inputs
from jaxdl.data.ranges import check_count, check_range, told
from jaxdl.data.table import (
    Table,
    at_rows,
    below,
    check_examples,
    origins,
    sorted_table,
    without_replacement,
)
from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Count, Episode, Key, PyTree, Sampler, Scalar


def meta_dataset_few_shot(
    x: PyTree,
    labels: Any,
    *,
    ways: tuple[int, int] = (5, 50),
    max_queries: int = 10,
    max_support: int = 500,
    max_shots: int = 100,
    scale: float | None = None,
    weights: Any = None,
) -> Sampler:
    """Sampler of episodes whose shots differ from class to class, by the rule of Meta-Dataset.

    1. The number of ways is uniform in `ways`. Classes are drawn without replacement. (The paper
       draws the classes of ImageNet and Omniglot by their hierarchies; this function does not.)
    2. Each class has the same number of queries: half of the smallest class of the episode, rounded
       down, and at most `max_queries`.
    3. The support set has `sum(ceil(beta * min(max_shots, left)))` examples, and at most
       `max_support`. The sum is over classes, `left` are the examples of a class that are no
       queries, and beta is uniform in (0, 1].
    4. Each class has one shot, and its share of the others, rounded down: shares are in proportion
       to `size * exp(alpha)`, where alpha of each class is uniform in [log 0.5, log 2). A class has
       no more shots than `left`.

    >>> import jaxdl, jax, numpy as np
    >>> x, labels = np.arange(60.0)[:, None], np.repeat(["ant", "bee", "cow"], [30, 10, 20])
    >>> sample = jaxdl.meta_dataset_few_shot(x, labels, ways=(2, 3))
    >>> support, query = jax.jit(sample)(jax.random.key(2))
    >>> [np.bincount(part.y, weights=part.weight).tolist() for part in (support, query)]
    [[4.0, 2.0, 11.0], [5.0, 5.0, 5.0]]

    The support set has `max_support` rows, or fewer if there can be no more. Rows of each class
    stand together, in order of their labels, and padding of weight 0 is at the end. The query set
    has `max_queries` rows for each of the most ways. The rows of a class begin it, and padding
    fills it up.

    A class with fewer than 2 examples is left out, and a warning names it. About heads, see
    `few_shot`.

    Args:
        x: as in `few_shot`.
        labels: as in `few_shot`.
        ways: fewest and most. The range ends at the number of classes.
        max_queries: most queries per class.
        max_support: most support examples of an episode, at least the most ways.
        max_shots: how much a class may add to the size of the support set. A class may have more
            shots than that.
        scale: as in `few_shot`.
        weights: as in `few_shot`.

    Returns:
        A `jax.tree_util.Partial` that carries the data set.

    Raises:
        InputError: if the data have other shapes or types, or too few classes or examples, or a
            limit is out of range.
    """
    examples = check_examples(x, labels, weights, scale)
    fewest, most = check_range("ways", ways)
    max_queries = check_count("max_queries", max_queries)
    max_support = check_count("max_support", max_support)
    max_shots = check_count("max_shots", max_shots)
    kept = np.flatnonzero(examples.sizes >= 2)
    sizes, most = examples.sizes[kept], min(most, len(kept))
    if fewest > len(kept):
        raise InputError(
            f"ways={ways}, but there are only {len(kept)} classes of 2 examples or more. Choose"
            " fewer ways"
        )
    if max_support < most:
        raise InputError(
            f"max_support={max_support} is less than one example for each of {most} ways. Choose a"
            " larger one, or fewer ways"
        )
    if (small := examples.sizes < 2).any():
        warnings.warn(
            f"{told(examples.names, examples.sizes, small)} fewer than 2 examples and are left out."
            " Give them more examples to keep them",
            stacklevel=2,
        )
    largest = np.sort(np.minimum(sizes - 1, max_shots))[-most:]
    given = min(max_support, int(largest.sum()))
    asked = min(max_queries, int(sizes.max()) // 2)

    def draw(table: Table, key: Key) -> Episode:
        class_key, way_key, beta_key, alpha_key, example_key = jax.random.split(key, 5)
        sampled = without_replacement(jax.random.bits(class_key, (most,)), len(kept))
        present = jnp.arange(most) < jax.random.randint(way_key, (), fewest, most + 1)
        beta = 1 - jax.random.uniform(beta_key)
        alpha = jax.random.uniform(alpha_key, (most,), minval=np.log(0.5), maxval=np.log(2))
        counts = table.counts[sampled]
        shots, queries = shots_and_queries(
            counts, present, beta, alpha, max_queries, max_support, max_shots
        )
        # The rows of the support set, and then those of the query set: each the index of its class
        # in the episode, and how many examples of the class come before.
        ends, row = jnp.cumsum(shots), jnp.arange(given)
        of = jnp.minimum(jnp.searchsorted(ends, row, side="right"), most - 1).astype(jnp.int32)
        done = row - (ends - shots)[of]
        of_query = jnp.repeat(jnp.arange(most, dtype=jnp.int32), asked)
        place = jnp.tile(jnp.arange(asked), most)
        real = jnp.concatenate([row < ends[-1], present[of_query] & (place < queries)])
        of = jnp.concatenate([of, of_query])
        done = jnp.concatenate([done, shots[of_query] + place])
        bits = jax.random.bits(example_key, real.shape)
        rows = _rows(bits, table.starts[sampled][of], counts[of], done, real, table.padding)
        x, weight = at_rows(table, rows)
        x = as_inputs(x, scale)
        first, rest = (
            Batch(*jax.tree.map(lambda leaf, part=part: leaf[part], (x, of, weight)))
            for part in (slice(given), slice(given, None))
        )
        return Episode(first, rest)

    return jax.tree_util.Partial(draw, sorted_table(examples, kept, padded=True))


def shots_and_queries(
    sizes: Int[Array, " ways"],
    present: Bool[Array, " ways"],
    beta: Scalar,
    alpha: Float[Array, " ways"],
    max_queries: int,
    max_support: int,
    max_shots: int,
) -> tuple[Int[Array, " ways"], Count]:
    """The shots of each class, 0 for those that are not present, and the queries of each other.

    `sizes` are of the classes. beta is in (0, 1], and alpha in [log 0.5, log 2).
    """
    queries = jnp.minimum(max_queries, jnp.min(sizes, where=present, initial=2**30) // 2)
    left = sizes - queries
    added = jnp.ceil(beta * jnp.minimum(max_shots, left))
    support = jnp.minimum(jnp.sum(added, where=present), max_support)
    shares = jnp.where(present, sizes * jnp.exp(alpha), 0)
    others = shares / jnp.sum(shares) * (support - jnp.sum(present))
    shots = jnp.minimum(jnp.floor(others).astype(jnp.int32) + 1, left)
    return jnp.where(present, shots, 0), queries


def _rows(
    bits: UInt[Array, " rows"],
    starts: Int[Array, " rows"],
    sizes: Int[Array, " rows"],
    done: Int[Array, " rows"],
    real: Bool[Array, " rows"],
    padding: int,
) -> Int[Array, " rows"]:
    """Rows of a table without replacement: a Fisher-Yates shuffle of all classes at once.

    Each row is of a class that starts at `starts` and has `sizes` examples, `done` of them drawn
    before. `padding` stands where `real` is False.
    """
    places = starts + done
    others = jnp.where(real, places + below(bits, sizes - done), padding)
    places = jnp.where(real, places, padding)
    swapped, origin = origins(places, others)
    return jnp.where(swapped, places[origin], others)
