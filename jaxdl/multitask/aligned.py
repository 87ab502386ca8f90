"""Aligned-MTL (Senushkin et al. 2023, arXiv:2305.19000)."""

import jax.numpy as jnp
import numpy as np

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram


def aligned() -> TaskMethod:
    """The mean of gradients made orthogonal, and all as long as the least of their components.

    The matrix of gradients gets the condition number 1: its singular values become the smallest of
    those that are not zero, its singular vectors stay (algorithm 1 with equal preferences).
    Identical tasks give the gradient of one. A task without a gradient counts in the mean alone.

    What counts as zero depends on the precision: in float32, components 2000 times shorter than the
    longest or so.
    """
    return weigh_gram(_balanced)


def _balanced(gram: Gram) -> PerTask:
    tasks = gram.shape[0]
    values, vectors = jnp.linalg.eigh(gram)
    present = values > tasks * float(np.finfo(gram.dtype).eps) * jnp.max(values)
    least = jnp.min(jnp.where(present, values, jnp.inf))
    factors = jnp.where(present, jnp.sqrt(least / jnp.where(present, values, 1)), 0)
    return vectors @ (factors * jnp.mean(vectors, axis=0))
