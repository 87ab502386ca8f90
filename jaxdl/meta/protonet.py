"""Prototypical networks (Snell, Swersky, Zemel 2017, arXiv:1703.05175).

The meta-parameters are those of an embedding. To adapt to a task, the learner takes the mean
embedding of each class, its prototype. A query belongs to the class of the nearest prototype.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float

from jaxdl.grads import check_model
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.vectors import class_means, distance_logits
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Params,
    PyTree,
    Weight,
)


class Prototypes(NamedTuple):
    """The adapted state: the embedding's parameters, and class means `[ways, features]`.

    `present` says which classes the support set has. The mean of an absent class is 0, and has no
    effect.
    """

    params: Params
    means: Float[Array, "ways features"]
    present: Bool[Array, " ways"]


def protonet(
    model: Embedding, loss: LossFn, *, ways: int, inner_dropout: bool = False
) -> MetaLearner:
    """Prototypical network on the embedding `model`, whose outputs are flattened to vectors.

    Predictions are logits `[n, ways]`: minus the squared Euclidean distance to each prototype.
    There are no inner steps, so `adapt` returns the same for all `steps`.

    A task may have fewer than `ways` classes. A class without a support example that counts has no
    prototype. Its logits are -inf, so that its probability is 0. Label smoothing has no meaning for
    such a class, and makes the loss infinite.

    Dropout in the embedding is on for queries in training. For the support set it is on only with
    `inner_dropout`, in training and in evaluation.

    Args:
        inner_dropout: Dropout in the embedding of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> embedding = jaxdl.mlp((16,))
    >>> learner = jaxdl.protonet(embedding, jaxdl.cross_entropy, ways=5)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> adapted.means.shape, jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    ((5, 16), (7, 5))
    """
    check_model(model)

    def embed(
        params: Params, x: PyTree, key: Key | None, weight: Weight | None
    ) -> Float[Array, "n features"]:
        features = model.apply(params, x, key=key, weight=weight)
        return features.reshape(features.shape[0], -1)

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Prototypes:
        del steps  # class means need no steps
        x, weight = without_void(support.x, support.weight), support.weight
        features = embed(params, x, key if inner_dropout else None, weight)
        return Prototypes(params, *class_means(features, support.y, ways, weight))

    def predict(
        adapted: Prototypes, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        features = embed(adapted.params, x, key, weight)
        return distance_logits(features, adapted.means, adapted.present)

    return MetaLearner(model.init, adapt, predict, through_adaptation(adapt, predict, loss))
