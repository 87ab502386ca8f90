"""Matching networks (Vinyals et al. 2016, arXiv:1606.04080).

The meta-parameters are those of an embedding. To adapt to a task, the learner stores the embedding
of each support example. A query attends to them by a softmax of cosines, and the attention that the
examples of a class get is the probability of this class.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxdl.grads import check_model
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.head import flat_features
from jaxdl.meta.vectors import unit
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


class Memory(NamedTuple):
    """The embedding's parameters, the directions of the support features, and their attention.

    `log_weight` is the logarithm of an example's weight, which multiplies its attention. `members`
    says which examples that count belong to a class.
    """

    params: Params
    directions: Float[Array, "n features"]
    log_weight: Float[Array, " n"]
    members: Bool[Array, "n ways"]


def matchingnet(
    features: Embedding, loss: LossFn, *, ways: int, inner_dropout: bool = False
) -> MetaLearner:
    """Matching network on the embedding `features`, whose outputs are flattened to vectors.

    Predictions are log-probabilities `[n, ways]`: the logarithm of the attention that a class gets.
    A class with more support examples gets more of it. There are no inner steps, so `adapt` returns
    the same for all `steps`.

    Cosines lie in [-1, 1], so probabilities stay moderate: with 5 classes of one example, the
    largest is `e / (e + 4 / e)`, or 0.65. The weight of a support example multiplies its attention.

    A class without a support example that counts has the logit -inf, as in `protonet`.

    Deviations: support examples and queries have one embedding, without the paper's full-context
    embeddings, which are LSTMs over the support set.

    Args:
        inner_dropout: Dropout in the embedding of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.matchingnet(jaxdl.mlp((16,)), jaxdl.cross_entropy, ways=5)
    >>> support = jaxdl.Batch(jnp.eye(10), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> logits = jax.jit(learner.predict)(adapted, jnp.ones((7, 10)))
    >>> logits.shape, bool(jnp.allclose(jnp.exp(logits).sum(axis=1), 1))
    ((7, 5), True)
    """
    check_model(features)

    def embed(
        params: Params, x: PyTree, key: Key | None, weight: Weight | None
    ) -> Float[Array, "n features"]:
        return unit(flat_features(features, params, x, key=key, weight=weight))

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Memory:
        del steps  # attention needs no steps
        x, weight = without_void(support.x, support.weight), support.weight
        directions = embed(params, x, key if inner_dropout else None, weight)
        counts = jnp.ones(len(directions)) if weight is None else weight
        directions = jnp.where(counts[:, None] > 0, directions, 0)
        members = (support.y[:, None] == jnp.arange(ways)[None]) & (counts[:, None] > 0)
        return Memory(params, directions, jnp.log(counts), members)

    def predict(
        adapted: Memory, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        cosines = embed(adapted.params, x, key, weight) @ adapted.directions.T
        attention = jax.nn.log_softmax(cosines + adapted.log_weight[None])
        of_members = jnp.where(adapted.members[None], attention[:, :, None], -jnp.inf)
        return jax.nn.logsumexp(of_members, axis=1)

    return MetaLearner(features.init, adapt, predict, through_adaptation(adapt, predict, loss))
