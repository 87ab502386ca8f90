"""SimpleShot (Wang et al. 2019, arXiv:1911.04623): nearest centroids of ordinary features.

A net learns to classify all training classes at once. In a task, nothing is trained: features are
centred and brought to length 1 (the paper's CL2N), and a query belongs to the nearest class mean.
"""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxdl.errors import InputError
from jaxdl.grads import of_loss
from jaxdl.losses import without_void
from jaxdl.meta.feature_mean import WithMean, with_mean
from jaxdl.meta.head import Headed, flat_features
from jaxdl.meta.vectors import class_means, distance_logits, mean_row, unit
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    PyTree,
    TransferLearner,
    Weight,
)

Centre = Literal["training", "support", "none"]
"""What is subtracted from features: the mean of training, that of the support set, or nothing."""


class Centroids(NamedTuple):
    """The net, the point that features are centred by, class means, and who is present."""

    net: Headed
    centre: Float[Array, " width"]
    means: Float[Array, "ways width"]
    present: Bool[Array, " ways"]


def simpleshot(
    features: Embedding,
    loss: LossFn,
    *,
    classes: int,
    ways: int,
    centre: Centre = "training",
    inner_dropout: bool = False,
) -> TransferLearner:
    """Pretraining on `classes` classes, then nearest centroids in each task of `ways` or fewer.

    `grad` takes a `Batch` with labels in `[0, classes)`. Predictions are logits `[n, ways]`: minus
    the squared distance of centred features of length 1. `adapt` returns the same for all `steps`.
    A class without a support example that counts has the logit -inf, as in `protonet`.

    Deviation: the paper computes the mean of all training features after training. Here it is a
    parameter. Train by `jaxdl.averaging_mean(tx)`, which makes it a running average. By another
    optimiser, such as Adam, it stays far from the mean.

    Args:
        centre: Features are centred by their mean in training (CL2N, as in the paper), by that of
            the support set, or not at all (the paper's L2N).
        inner_dropout: Dropout in the features of the support set, too.

    Raises:
        InputError: if there is no such `centre`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> learner = jaxdl.simpleshot(jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=2)
    >>> key, x = jax.random.key(0), jnp.eye(2)
    >>> params = learner.init(key, x)  # a net trains them by learner.grad
    >>> support = jaxdl.Batch(x, y=jnp.array([1, 0]))
    >>> adapted = jax.jit(learner.adapt)(key, params, support)
    >>> learner.predict(adapted, x).argmax(axis=1).tolist()
    [1, 0]
    """
    if centre not in get_args(Centre):
        raise InputError(f"`centre={centre}` is unknown. Choose among {' '.join(get_args(Centre))}")
    init, value = with_mean(features, loss, classes)

    def adapt(key: Key, params: WithMean, support: Batch, steps: int | None = None) -> Centroids:
        del steps  # class means need no steps
        x, weight = without_void(support.x, support.weight), support.weight
        masks = key if inner_dropout else None
        hidden = flat_features(features, params.net.features, x, key=masks, weight=weight)
        of_support, zero = mean_row(hidden, weight), jnp.zeros_like(params.mean)
        by = {"training": params.mean, "support": of_support, "none": zero}[centre]
        return Centroids(
            params.net, by, *class_means(unit(hidden - by[None]), support.y, ways, weight)
        )

    def predict(
        adapted: Centroids, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        hidden = flat_features(features, adapted.net.features, x, key=key, weight=weight)
        hidden = unit(hidden - adapted.centre[None])
        return distance_logits(hidden, adapted.means, adapted.present)

    return TransferLearner(init, adapt, predict, of_loss(value))
