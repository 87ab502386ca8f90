"""The training of a head on frozen features, for learners that adapt nothing else."""

from collections.abc import Callable
from typing import TypeVar

import optax
from jaxtyping import Float

from jaxdl.grads import objective
from jaxdl.losses import without_void
from jaxdl.meta.head import flat_features
from jaxdl.meta.inner import descend
from jaxdl.types import Array, Batch, Embedding, Key, LossFn, Model, Params, PyTree, Weight

Head = TypeVar("Head")
"""Parameters of a head, a pytree."""


def support_features(features: Embedding, params: Params, support: Batch, key: Key | None) -> Batch:
    """The support set with its flat features `[n, width]` in place of its inputs."""
    x = without_void(support.x, support.weight)
    return support._replace(x=flat_features(features, params, x, key=key, weight=support.weight))


def train_head(
    apply: Callable[[Head, Float[Array, "n width"]], Float[Array, "n ways"]],
    start: Head,
    loss: LossFn,
    support: Batch,
    tx: optax.GradientTransformation,
    steps: int,
) -> Head:
    """The head after `steps` steps of `tx` on the whole support set, whose inputs are features.

    >>> import jax.numpy as jnp, optax, jaxdl
    >>> x, y = jnp.array([[1.0], [2.0]]), jnp.array([[2.0], [4.0]])
    >>> def apply(slope, x):
    ...     return slope * x
    >>> start, tx = jnp.float32(0), optax.sgd(0.1)
    >>> found = train_head(apply, start, jaxdl.mean_squared_error, jaxdl.Batch(x, y), tx, 20)
    >>> f"{found:.3f}"
    '2.000'
    """

    def applied(
        head: Params, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        del key, weight  # a head has neither dropout nor statistics of the batch
        return apply(head, x)

    head = Model(lambda key, x: start, applied)
    found: Head = descend(objective(head, loss), start, tx, support, steps=steps)[0]
    return found
