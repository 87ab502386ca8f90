"""Learners that solve a ridge regression in each task: what `r2d2` and `metaoptnet` share."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.head import flat_features
from jaxdl.meta.ridge import RidgeHead, ridge_head, ridge_scores
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Params,
    PyTree,
    Scalar,
    Weight,
)


class RidgeNumbers(NamedTuple):
    """The strength of the penalty, the scale and the offset of the scores of classes, and the scale
    of predicted numbers."""

    strength: Scalar | float
    scale: Scalar
    offset: Scalar | float
    of_numbers: Scalar


class RidgeAdapted(NamedTuple):
    """The meta-parameters, and the head of the task. With a bias, its last row is the bias.

    `scale` is that of the scores, or that of numbers if the targets of the task were numbers.
    """

    params: Params
    head: RidgeHead
    scale: Scalar


def ridge_learner(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    start: Callable[[Params], Params],
    numbers: Callable[[Params], RidgeNumbers],
    bias: bool,
    inner_dropout: bool,
) -> MetaLearner:
    """Ridge regression on the embedding `features`, in closed form.

    The meta-parameters are what `start` makes of those of the embedding, which it holds as
    `features`.

    Args:
        start: `(parameters of the embedding) -> meta-parameters`, at the start of training.
        numbers: what the head takes of the meta-parameters.
        bias: whether a feature that is always 1 is added.
        inner_dropout: Dropout in the embedding of the support set, too.

    Raises:
        InputError: if `features` is no model.
    """
    check_model(features)

    def init(key: Key, x: PyTree) -> Params:
        return start(features.init(key, x))

    def embed(
        params: Params, x: PyTree, key: Key | None, weight: Weight | None
    ) -> Float[Array, "n width"]:
        hidden = flat_features(features, params, x, key=key, weight=weight)
        if not bias:
            return hidden
        return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> RidgeAdapted:
        del steps  # a closed form needs no steps
        x, weight = without_void(support.x, support.weight), support.weight
        hidden = embed(params.features, x, key if inner_dropout else None, weight)
        strength, of_classes, _, of_numbers = numbers(params)
        classes = jnp.issubdtype(support.y.dtype, jnp.integer)
        head = ridge_head(hidden, support, strength, ways=ways)
        return RidgeAdapted(params, head, of_classes if classes else of_numbers)

    def predict(
        adapted: RidgeAdapted, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Array:
        params, head, scale = adapted
        hidden = embed(params.features, x, key, weight)
        return ridge_scores(head, hidden, scale, numbers(params).offset)

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))


def check_strength(strength: float) -> None:
    """Validates the strength of the penalty at the start of training.

    Raises:
        InputError: if it is not above 0.
    """
    if not strength > 0:
        raise InputError(f"`strength={strength}` makes no ridge regression. Give a number above 0")
