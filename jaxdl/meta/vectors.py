"""Feature vectors: their means, directions and distances."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxdl.types import Array, Weight


def class_means(
    features: Float[Array, "n width"],
    labels: Int[Array, " n"],
    ways: int,
    weight: Weight | None = None,
) -> tuple[Float[Array, "ways width"], Bool[Array, " ways"]]:
    """The weighted mean of each class, and which classes have an example that counts.

    The mean of an absent class is 0. A row of weight 0 counts for nothing, even if it is NaN.

    >>> import jax.numpy as jnp
    >>> x, weight = jnp.array([[1.0], [5.0], [jnp.nan]]), jnp.array([3.0, 1.0, 0.0])
    >>> means, present = class_means(x, jnp.array([0, 0, 1]), 2, weight)
    >>> means.tolist(), present.tolist()  # (3 * 1 + 1 * 5) / (3 + 1)
    ([[2.0], [0.0]], [True, False])
    """
    members = jax.nn.one_hot(labels, ways)
    if weight is not None:
        members = members * weight[:, None]
        features = jnp.where(weight[:, None] == 0, 0, features)
    sums, counts = members.T @ features, members.sum(axis=0)
    present = counts > 0
    return sums / jnp.where(present, counts, 1)[:, None], present


def mean_row(
    features: Float[Array, "n width"], weight: Weight | None = None
) -> Float[Array, " width"]:
    """The weighted mean of the rows. A row of weight 0 counts for nothing, even if it is NaN.

    >>> import jax.numpy as jnp
    >>> mean_row(jnp.array([[1.0], [5.0], [jnp.nan]]), jnp.array([3.0, 1.0, 0.0])).tolist()
    [2.0]
    """
    return class_means(features, jnp.zeros(len(features), int), 1, weight)[0][0]


def distance_logits(
    features: Float[Array, "n width"],
    means: Float[Array, "ways width"],
    present: Bool[Array, " ways"],
) -> Float[Array, "n ways"]:
    """Minus the squared distance to each mean, and -inf for a class that is not present.

    >>> import jax.numpy as jnp
    >>> means = jnp.array([[1.0], [0.0]])
    >>> distance_logits(jnp.array([[3.0]]), means, jnp.array([True, False])).tolist()
    [[-4.0, -inf]]
    """
    differences = features[:, None, :] - means[None, :, :]
    distances = jnp.sum(jnp.square(differences), axis=-1)
    return jnp.where(present[None, :], -distances, -jnp.inf)


def unit(vectors: Float[Array, "*n width"]) -> Float[Array, "*n width"]:
    """The vectors at length 1. That of a vector of zeros is zeros, and so is its derivative.

    >>> import jax.numpy as jnp
    >>> print(unit(jnp.array([[3.0, -4.0], [0.0, 0.0]])))
    [[ 0.6 -0.8]
     [ 0.   0. ]]
    """
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    nonzero = largest > 0
    # Squares of small numbers underflow, so the largest number is 1 first. Its derivative cancels.
    scaled = vectors / jax.lax.stop_gradient(jnp.where(nonzero, largest, 1))
    squared = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    return jnp.where(nonzero, scaled / jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)


def full_product(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    """The matrix product in full precision: on a GPU, the default rounds to 10 bits."""
    return jnp.matmul(a, b, precision="highest")
