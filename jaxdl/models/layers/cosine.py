"""Vectors of length 1, and the cosine classifier, a head that compares directions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxdl.types import Array, Key


def unit_vectors(x: Float[Array, "n width"]) -> Float[Array, "n width"]:
    """Each row divided by its Euclidean length. A row of zeros stays as it is.

    Every derivative is finite, at zero too.

    >>> import jax.numpy as jnp
    >>> rows = unit_vectors(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    >>> [[f"{value:.1f}" for value in row] for row in rows]
    [['0.6', '0.8'], ['0.0', '0.0']]
    """
    wide = x.astype(jnp.promote_types(x.dtype, "float32"))  # squares of float16 overflow
    squares = jnp.sum(jnp.square(wide), axis=1, keepdims=True)
    inverse = lax.rsqrt(jnp.where(squares > np.finfo(wide.dtype).tiny, squares, 1))
    return (wide * inverse).astype(x.dtype)


class CosineHead(NamedTuple):
    """Parameters of a cosine classifier: directions `[width, outputs]`, and a length per output.

    The directions need not have length 1, because only their direction counts.
    """

    directions: Float[Array, "width outputs"]
    lengths: Float[Array, " outputs"]


def cosine_head(key: Key, width: int, outputs: int) -> CosineHead:
    """A head drawn as PyTorch draws a dense layer, uniformly within `1 / sqrt(width)`.

    The lengths are those of the drawn directions, about 0.58.

    >>> import jax
    >>> cosine_head(jax.random.key(0), width=8, outputs=3).directions.shape
    (8, 3)
    """
    limit = width**-0.5
    drawn = jax.random.uniform(key, (width, outputs), minval=-limit, maxval=limit)
    return CosineHead(drawn, jnp.linalg.norm(drawn, axis=0))


def cosine_logits(
    head: CosineHead, x: Float[Array, "n width"], scale: float
) -> Float[Array, "n outputs"]:
    """`scale` times the length of each output times the cosine between x and its direction.

    >>> import jax.numpy as jnp
    >>> head = CosineHead(jnp.array([[5.0, 0.0], [0.0, 2.0]]), lengths=jnp.array([1.0, 0.5]))
    >>> logits = cosine_logits(head, jnp.array([[3.0, 4.0]]), scale=10)
    >>> [f"{value:.1f}" for value in logits[0]]  # 10 * 0.6, and 10 * 0.5 * 0.8
    ['6.0', '4.0']
    """
    return scale * head.lengths[None] * (unit_vectors(x) @ unit_vectors(head.directions.T).T)
