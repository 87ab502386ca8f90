"""Attention of nets that learn in context: from examples, and from queries that see none other."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxdl.types import Array


def attend(
    queries: Float[Array, "n heads width"],
    keys: Float[Array, "m heads width"],
    values: Float[Array, "m heads depth"],
    bias: Float[Array, "n m"],
) -> Float[Array, "n all"]:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762), heads side by side.

    Args:
        bias: added to the scores. Where it is -inf, nothing is seen. A row of -inf alone gives a
            mean of all values, which is finite.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1, 1))
    >>> values, bias = jnp.array([[[3.0]], [[5.0]]]), jnp.array([[0.0, -jnp.inf]])
    >>> attend(one, jnp.ones((2, 1, 1)), values, bias).tolist()
    [[3.0]]
    """
    scores = jnp.einsum("nhw,mhw->hnm", queries, keys) / np.sqrt(queries.shape[2])
    shares = jax.nn.softmax(_finite(scores + bias[None]), axis=2)
    return jnp.einsum("hnm,mhd->nhd", shares, values).reshape(len(queries), -1)


def attend_apart(
    queries: Float[Array, "n heads width"],
    keys: Float[Array, "m heads width"],
    values: Float[Array, "m heads depth"],
    bias: Float[Array, " m"],
    own_keys: Float[Array, "n heads width"],
    own_values: Float[Array, "n heads depth"],
) -> Float[Array, "n all"]:
    """Attention of each query to the `m` examples and to itself, but to no other query.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1, 1))
    >>> attend_apart(one, one, 3 * one, jnp.zeros(1), one, 5 * one).tolist()
    [[4.0]]
    """
    scale = np.sqrt(queries.shape[2])
    scores = jnp.einsum("nhw,mhw->nhm", queries, keys) / scale + bias[None, None]
    own = jnp.sum(queries * own_keys, axis=2, keepdims=True) / scale
    shares = jax.nn.softmax(_finite(jnp.concatenate([scores, own], axis=2)), axis=2)
    read = jnp.einsum("nhm,mhd->nhd", shares[..., :-1], values) + shares[..., -1:] * own_values
    return read.reshape(len(queries), -1)


def attend_in_groups(
    queries: Float[Array, "groups n heads width"],
    keys: Float[Array, "groups m heads width"],
    values: Float[Array, "groups m heads depth"],
    bias: Float[Array, " m"],
) -> Float[Array, "groups n all"]:
    """`attend` in each of many small groups, with one bias per key.

    The sums of the exponentials divide after the product with the values, where there are fewer
    numbers, and each product has contiguous operands: this takes half the time of `attend` under
    `vmap` on a CPU.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1, 1, 1))
    >>> values, bias = jnp.array([[[[3.0]], [[5.0]]]]), jnp.array([0.0, -jnp.inf])
    >>> attend_in_groups(one, jnp.ones((1, 2, 1, 1)), values, bias).tolist()
    [[[3.0]]]
    """
    q, k, v = (jnp.swapaxes(each, 1, 2) for each in (queries, keys, values))
    scores = jnp.einsum("ghnw,ghmw->ghnm", q, k) / np.sqrt(q.shape[3])
    scores = _finite(scores + bias[None, None, None])
    shares = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=3, keepdims=True)))
    read = jnp.einsum("ghnm,ghmd->ghnd", shares, v) / jnp.sum(shares, axis=3)[..., None]
    return jnp.swapaxes(read, 1, 2).reshape(*queries.shape[:2], -1)


def log_weight(weight: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The logarithm, -inf for 0: added to a score, it lets a key of weight 2 count twice."""
    counts = weight > 0  # the logarithm has no finite derivative at 0
    return jnp.where(counts, jnp.log(jnp.where(counts, weight, 1)), -jnp.inf)


def _finite(scores: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """-inf becomes the lowest number, because a softmax of -inf alone is NaN."""
    return jnp.maximum(scores, np.finfo(scores.dtype).min / 2)
