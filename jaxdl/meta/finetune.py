"""Pretrain and fine-tune: transfer learning as a baseline for few-shot classification.

This is no meta-learning. A net learns to classify all training classes at once. In a task, a new
head replaces the old one, and all parameters are trained on the support set. A meta-learner that
does not beat it has only learned features. The Baseline of Chen et al. 2019 (arXiv:1904.04232)
freezes the features: see `linear_probe`.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxdl.grads import objective, of_loss
from jaxdl.meta.head import Headed, with_head
from jaxdl.meta.inner import descend
from jaxdl.optim.check import check_tx
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


def finetune(
    features: Embedding,
    loss: LossFn,
    *,
    classes: int,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    inner_dropout: bool = False,
) -> TransferLearner:
    """Pretraining on `classes` classes, then `steps` steps of `tx` in each task of `ways` or fewer.

    `grad` takes a `Batch` with labels in `[0, classes)`. The new head starts at zero. From there,
    the first gradient step moves the weights of a class along its mean feature.

    Dropout in the features is on in pretraining. In a task it is on only with `inner_dropout`. Each
    step then draws new masks from the key of `adapt`.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> learner = jaxdl.finetune(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=2, tx=optax.sgd(1.0), steps=20
    ... )
    >>> key, x = jax.random.key(0), jnp.eye(2)
    >>> params = learner.init(key, x)  # a net trains them by learner.grad
    >>> support = jaxdl.Batch(x, y=jnp.array([1, 0]))
    >>> adapted = jax.jit(learner.adapt)(key, params, support)
    >>> learner.predict(adapted, x).argmax(axis=1).tolist()
    [1, 0]
    """

    check_tx(tx)
    net = with_head(features, classes)

    def adapt(key: Key, params: Headed, support: Batch, steps: int | None = None) -> Headed:
        width = params.kernel.shape[0]
        start = Headed(params.features, jnp.zeros((width, ways)), jnp.zeros(ways))
        depth = default_steps if steps is None else steps
        masks = key if inner_dropout else None
        return descend(value, start, tx, support, steps=depth, key=masks)[0]

    def predict(
        adapted: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n classes"]:
        return net.apply(adapted, x, key=key, weight=weight)

    value = objective(net, loss)
    default_steps = steps
    return TransferLearner(net.init, adapt, predict, of_loss(value))
