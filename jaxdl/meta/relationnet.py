"""Relation networks (Sung et al. 2018, arXiv:1711.06025).

The meta-parameters are those of an embedding and of a relation module. To adapt to a task, the
learner takes the mean feature of each class. The module scores each pair of a class and a query.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxdl.grads import check_model
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.vectors import class_means
from jaxdl.models.relation import relation
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Model,
    Params,
    PyTree,
    Weight,
)


class RelationParams(NamedTuple):
    """Parameters of the embedding and of the relation module."""

    features: Params
    module: Params


class Classes(NamedTuple):
    """The meta-parameters, the mean feature of each class, and which classes are present."""

    params: RelationParams
    means: Float[Array, " ways *feature"]
    present: Bool[Array, " ways"]


def relationnet(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    module: Model | None = None,
    inner_dropout: bool = False,
) -> MetaLearner:
    """Relation network on the embedding `features`, whose outputs are vectors or maps.

    Predictions are the scores `[n, ways]` that `module` gives to the pairs of a query and a class.
    The paper's score is their sigmoid, and its loss is `relation_error`. Cross-entropy takes them
    as logits. There are no inner steps, so `adapt` returns the same for all `steps`.

    A class without a support example that counts has the score -inf, as in `protonet`. In the
    module's batch norm a pair counts as its query does, and not at all if its class is absent.

    Deviations: a class is the mean of its features, where the paper adds them up, so that a score
    does not depend on the number of shots. The paper's embedding gives maps, `[n, height, width,
    channels]`. On vectors the module is dense, as `jaxdl.models.relation` says.

    Args:
        module: scores pairs: features of a class and of a query, concatenated along the last axis,
            to `[pairs, 1]`. None is the paper's module.
        inner_dropout: Dropout in the embedding of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.relationnet(jaxdl.mlp((16,)), jaxdl.relation_error, ways=5)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> adapted.means.shape, jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    ((5, 16), (7, 5))
    """
    check_model(features)
    relate = relation() if module is None else module

    def init(key: Key, x: PyTree) -> RelationParams:
        feature_key, module_key = jax.random.split(key)
        params = features.init(feature_key, x)
        # Two examples, because batch norm raises an error for a batch of one.
        twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), x)
        one = jax.eval_shape(features.apply, params, twice)
        pairs = jnp.zeros((*one.shape[:-1], 2 * one.shape[-1]), one.dtype)
        return RelationParams(params, relate.init(module_key, pairs))

    def adapt(
        key: Key, params: RelationParams, support: Batch, steps: int | None = None
    ) -> Classes:
        del steps  # class means need no steps
        x, weight = without_void(support.x, support.weight), support.weight
        masks = key if inner_dropout else None
        hidden = features.apply(params.features, x, key=masks, weight=weight)
        flat = hidden.reshape(hidden.shape[0], -1)
        means, present = class_means(flat, support.y, ways, weight)
        return Classes(params, means.reshape(ways, *hidden.shape[1:]), present)

    def predict(
        adapted: Classes, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        params, means, present = adapted
        of_features, of_module = (None, None) if key is None else jax.random.split(key)
        hidden = features.apply(params.features, x, key=of_features, weight=weight)
        n, feature = hidden.shape[0], hidden.shape[1:]
        both = jnp.broadcast_arrays(means[None], hidden[:, None])
        pairs = jnp.concatenate(both, axis=-1).reshape(n * ways, *feature[:-1], 2 * feature[-1])
        counts = jnp.ones(n) if weight is None else weight
        counts = (counts[:, None] * present[None]).reshape(-1)
        scores = relate.apply(params.module, pairs, key=of_module, weight=counts).reshape(n, ways)
        return jnp.where(present[None], scores, -jnp.inf)

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))
