"""UPGrad, unconflicting projection of gradients (Quinton, Rey 2024, arXiv:2406.16232)."""

import jax
import jax.numpy as jnp

from jaxdl.multitask.combine import Gram, PerTask, TaskMethod, weigh_gram
from jaxdl.optim.qp import nonnegative


def upgrad() -> TaskMethod:
    """The mean of the gradients, each projected onto the cone where no loss increases.

    The cone is the set of all `d` whose inner product with every task's gradient is not negative.
    The projection of a gradient is the gradient plus a sum of the gradients, with weights of at
    least zero. These solve one quadratic program per task. Identical tasks give the gradient of
    one. A task with gradient zero counts in the mean alone.
    """

    def weigh(gram: Gram) -> PerTask:
        added = jax.vmap(nonnegative, (None, 0))(gram, -gram)
        return jnp.mean(jnp.eye(gram.shape[0], dtype=gram.dtype) + added, axis=0)

    return weigh_gram(weigh)
