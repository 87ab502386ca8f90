"""The loss of relation networks (Sung et al. 2018, arXiv:1711.06025)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.losses import correct, counted, weighted_mean
from jaxdl.types import Array, Metrics, Scalar, Weight


def relation_error(
    prediction: Float[Array, "n ways"], target: Array, weight: Weight | None = None
) -> tuple[Scalar, Metrics]:
    """The paper's loss: the mean squared error of sigmoid scores, 1 for the label and else 0.

    Labels are integers `[n]`. One that is none of the classes makes the loss NaN. Metrics: `loss`,
    and `accuracy` in `[0, 1]`.

    >>> import jax.numpy as jnp, jaxdl
    >>> loss, metrics = jaxdl.relation_error(jnp.array([[0.0, -jnp.inf]]), jnp.array([0]))
    >>> float(loss), float(metrics["accuracy"])  # ((1/2 - 1)^2 + 0) / 2
    (0.125, 1.0)
    """
    prediction, target = counted(weight, prediction, target)
    wanted = jax.nn.one_hot(target, prediction.shape[1])
    known = jnp.any(wanted > 0, axis=1, keepdims=True)
    errors = jnp.square(jax.nn.sigmoid(prediction) - wanted) * jnp.where(known, 1, jnp.nan)
    loss = weighted_mean(errors, weight)
    return loss, {"loss": loss, "accuracy": weighted_mean(correct(prediction, target), weight)}
