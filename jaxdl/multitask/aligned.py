"""Aligned-MTL (Senushkin et al. 2023, arXiv:2305.19000)."""

import jax.numpy as jnp
import numpy as np

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram


def aligned() -> TaskMethod:
    """The mean of the gradients after their matrix gets the condition number 1.

    The singular vectors of the matrix stay. Its singular values become the smallest one that is not
    zero (algorithm 1 with equal preferences). Identical tasks give the gradient of one. A task with
    gradient zero counts in the mean alone.

    The precision decides which singular values count as zero. In float32, they are those that are
    smaller than the largest by a factor of about 2000 or more.
    """
    return weigh_gram(_balanced)


def _balanced(gram: Gram) -> PerTask:
    tasks = gram.shape[0]
    values, vectors = jnp.linalg.eigh(gram)
    present = values > tasks * float(np.finfo(gram.dtype).eps) * jnp.max(values)
    least = jnp.min(jnp.where(present, values, jnp.inf))
    factors = jnp.where(present, jnp.sqrt(least / jnp.where(present, values, 1)), 0)
    return vectors @ (factors * jnp.mean(vectors, axis=0))
