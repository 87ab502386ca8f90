"""The loss of the queries of an episode, in training and in tests."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.losses import counted, measured, without_void
from jaxdl.types import Episode, LossFn, Metrics, PyTree, Scalar


def query_loss(
    predict: Callable[..., PyTree], loss: LossFn, episode: Episode
) -> tuple[Scalar, Metrics]:
    """The loss of predictions for the queries, of which those of weight 0 count for nothing.

    It is NaN if a label in the support set is none of the classes. A learner would leave out its
    example, because the label becomes a row of zeros. Classes have an output each, and a loss with
    an accuracy; a single output is the logit of two classes, with labels of the loss's own.
    """
    query = episode.query
    labels: Any = getattr(episode.support, "y", None)
    x, weight = without_void(query.x, query.weight), query.weight
    prediction = predict(x, weight=weight)
    value, metrics = measured(loss, prediction, query.y, weight)
    of_classes = "accuracy" in metrics and hasattr(labels, "dtype") and hasattr(prediction, "shape")
    if not of_classes or not jnp.issubdtype(labels.dtype, jnp.integer):
        return value, metrics
    if prediction.ndim <= query.y.ndim or prediction.shape[-1] == 1:  # a single output
        return value, metrics
    wrong = (labels < 0) | (labels >= prediction.shape[-1])
    (wrong,) = counted(episode.support.weight, wrong)
    return jax.tree.map(lambda v: jnp.where(jnp.any(wrong), jnp.nan, v), (value, metrics))
