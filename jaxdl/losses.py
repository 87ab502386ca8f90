"""Losses: `(prediction, target, weight) -> (scalar, metrics)`, means over weighted examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.types import Array, Metrics


def weighted_mean(values: Array, weight: Array | None = None) -> Array:
    """Mean of `values` `[n, ...]` over all elements, each row counted `weight` `[n]` times.

    A weight of zero everywhere gives zero, so that an empty shard of a batch does no harm.
    """
    if weight is None:
        return jnp.mean(values)
    values = jnp.reshape(values, (values.shape[0], -1)).mean(axis=1)
    return jnp.vdot(values, weight) / jnp.maximum(jnp.sum(weight), np.finfo(values.dtype).tiny)


def cross_entropy(
    prediction: Array, target: Array, weight: Array | None = None, *, smoothing: float = 0.0
) -> tuple[Array, Metrics]:
    """Softmax cross-entropy of logits `[n, classes]` with int labels `[n]`, in nats.

    `smoothing` in `[0, 1)` is the share of each label that goes to all classes alike (Szegedy et
    al. 2016, arXiv:1512.00567). Metrics: `loss`, and `accuracy` in `[0, 1]`.
    """
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(prediction, target)
    if smoothing:
        # Cross-entropy is linear in the target: the label's own, and the mean over classes.
        of_all = -jnp.mean(jax.nn.log_softmax(prediction), axis=-1)
        losses = (1 - smoothing) * losses + smoothing * of_all
    loss = weighted_mean(losses, weight)
    correct = (jnp.argmax(prediction, axis=-1) == target).astype(prediction.dtype)
    return loss, {"loss": loss, "accuracy": weighted_mean(correct, weight)}


def mean_squared_error(
    prediction: Array, target: Array, weight: Array | None = None
) -> tuple[Array, Metrics]:
    """Mean of `(prediction - target) ** 2` over examples and features (no factor 1/2)."""
    loss = weighted_mean(jnp.square(prediction - target), weight)
    return loss, {"loss": loss}
