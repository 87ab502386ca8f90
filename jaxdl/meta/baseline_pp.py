"""Baseline++ (Chen et al. 2019, arXiv:1904.04232): a linear probe whose heads compare directions.

A net with a cosine head learns to classify all training classes at once. The cosine keeps the
features of a class close together. In a task the features are frozen, and a new cosine head is
trained on the support set.
"""

from typing import NamedTuple

import jax
import optax
from jaxtyping import Float

from jaxdl.grads import check_model, objective, of_loss
from jaxdl.meta.frozen import support_features, train_head
from jaxdl.meta.head import flat_features, flat_width
from jaxdl.models.layers.cosine import CosineHead, cosine_head, cosine_logits
from jaxdl.optim.check import check_tx
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    Model,
    Params,
    PyTree,
    TransferLearner,
    Weight,
)

FEW_CLASSES = 200
"""Up to so many classes, the scale of the paper's code is 2, and for more it is 10."""


class CosineNet(NamedTuple):
    """Parameters of the features and of a cosine head on them."""

    features: Params
    head: CosineHead


def baseline_pp(
    features: Embedding,
    loss: LossFn,
    *,
    classes: int,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    scale: float | None = None,
    inner_dropout: bool = False,
) -> TransferLearner:
    """Pretraining on `classes` classes, then `steps` steps of `tx` on a new head in each task.

    `grad` takes a `Batch` with labels in `[0, classes)`. The task has `ways` classes or fewer. A
    logit is a scale times the cosine between features and the direction of a class, times a learned
    length per class, which the paper does not mention and its code has.

    The paper's code differs in two ways. It draws the new head anew in each task, and its steps
    take batches of 4 examples, 100 times through the support set. Here the draw is the same in all
    tasks, and each step takes the whole support set, so that the result does not depend on a draw.

    Dropout in the features is on in pretraining. In a task it is on only with `inner_dropout`, with
    one mask for all steps.

    Args:
        scale: of the cosines, in pretraining and in tasks. None: 2 for up to 200 classes and 10
            for more, as in the paper's code.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> learner = jaxdl.baseline_pp(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=2, tx=optax.sgd(1.0), steps=20
    ... )
    >>> key, x = jax.random.key(0), jnp.eye(2)
    >>> params = learner.init(key, x)  # a net trains them by learner.grad
    >>> adapted = jax.jit(learner.adapt)(key, params, jaxdl.Batch(x, y=jnp.array([1, 0])))
    >>> learner.predict(adapted, x).argmax(axis=1).tolist()
    [1, 0]
    """
    check_model(features)
    check_tx(tx)
    default_steps = steps

    def init(key: Key, x: PyTree) -> CosineNet:
        params = features.init(key, x)
        return CosineNet(params, cosine_head(key, flat_width(features, params, x), classes))

    def predict(
        adapted: CosineNet, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n outputs"]:
        return classify(
            adapted.head, flat_features(features, adapted.features, x, key=key, weight=weight)
        )

    def classify(head: CosineHead, hidden: Float[Array, "n width"]) -> Float[Array, "n outputs"]:
        of_code = 2 if len(head.lengths) <= FEW_CLASSES else 10
        return cosine_logits(head, hidden, of_code if scale is None else scale)

    def adapt(key: Key, params: CosineNet, support: Batch, steps: int | None = None) -> CosineNet:
        depth = default_steps if steps is None else steps
        masks = key if inner_dropout else None
        given = support_features(features, params.features, support, masks)
        start = cosine_head(jax.random.key(0), given.x.shape[1], ways)
        return CosineNet(params.features, train_head(classify, start, loss, given, tx, depth))

    return TransferLearner(init, adapt, predict, of_loss(objective(Model(init, predict), loss)))
