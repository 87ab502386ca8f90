"""RFS-simple, a good embedding is all you need (Tian et al. 2020, arXiv:2003.11539).

A net learns to classify all training classes at once. In a task its features are frozen, and a
logistic regression on them, each scaled to length 1, is solved on the support set. Nothing is
meta-learned. With the same net it beats MAML and ProtoNet in the paper.
"""

from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import objective, of_loss
from jaxdl.losses import without_void
from jaxdl.meta.head import Headed, flat_features, with_head
from jaxdl.meta.logistic import logistic_regression
from jaxdl.models.layers.cosine import unit_vectors
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    Params,
    PyTree,
    TransferLearner,
    Weight,
)


def rfs(
    features: Embedding,
    loss: LossFn,
    *,
    classes: int,
    ways: int,
    l2: float = 1.0,
    inner_dropout: bool = False,
) -> TransferLearner:
    """Pretraining on `classes` classes, then logistic regression in each task of `ways` or fewer.

    `grad` takes a `Batch` with labels in `[0, classes)`, and is that of `loss`. There are no inner
    steps: `adapt` returns the same for all `steps`, the minimum of the sum of cross-entropies over
    the support set plus `l2 / 2` times the squared weights, the bias left out. The paper's code
    calls scikit-learn with `l2=1`. Weights of examples multiply their cross-entropies.

    The features are those of the embedding, as in the paper's experiments. The paper's second
    method, self-distillation, is not here. A class without a support example that counts has the
    logit -inf, so that its probability is 0.

    Dropout in the features is on in pretraining. For the support set it is on only with
    `inner_dropout`.

    Args:
        l2: Strength of the penalty on the weights: 1 / C of scikit-learn.
        inner_dropout: Dropout in the features of the support set, too.

    Raises:
        InputError: if `l2` is not positive.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> learner = jaxdl.rfs(jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=3)
    >>> key, x = jax.random.key(0), jnp.eye(2)
    >>> params = learner.init(key, x)  # a net trains them by learner.grad
    >>> adapted = jax.jit(learner.adapt)(key, params, jaxdl.Batch(x, y=jnp.array([1, 0])))
    >>> logits = learner.predict(adapted, x)
    >>> logits.argmax(axis=1).tolist(), logits[:, 2].tolist()  # the third class does not occur
    ([1, 0], [-inf, -inf])
    """
    if not l2 > 0:
        raise InputError(f"`l2={l2}`: without a penalty there is no minimum. Choose more than 0")
    net = with_head(features, classes)

    def embed(
        params: Params, x: PyTree, key: Key | None, weight: Weight | None
    ) -> Float[Array, "n width"]:
        return unit_vectors(flat_features(features, params, x, key=key, weight=weight))

    def adapt(key: Key, params: Headed, support: Batch, steps: int | None = None) -> Headed:
        del steps  # the minimum needs no steps
        x, weight = without_void(support.x, support.weight), support.weight
        vectors = embed(params.features, x, key if inner_dropout else None, weight)
        return Headed(
            params.features, *logistic_regression(vectors, support.y, weight, ways=ways, l2=l2)
        )

    def predict(
        adapted: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        return embed(adapted.features, x, key, weight) @ adapted.kernel + adapted.bias[None]

    return TransferLearner(net.init, adapt, predict, of_loss(objective(net, loss)))
