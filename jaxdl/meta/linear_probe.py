"""Linear probe: the Baseline of "A closer look" (Chen et al. 2019, arXiv:1904.04232).

A net learns to classify all training classes at once. In a task its features are frozen, and a new
linear head is trained on the support set by gradient descent. The features are not scaled to length
1: that is `rfs`, whose head is solved exactly.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxdl.grads import objective, of_loss
from jaxdl.meta.frozen import support_features, train_head
from jaxdl.meta.head import Headed, flat_features, with_head
from jaxdl.meta.logistic import Linear
from jaxdl.optim.check import check_tx
from jaxdl.types import Array, Batch, Embedding, Key, LossFn, PyTree, TransferLearner, Weight


def linear_probe(
    features: Embedding,
    loss: LossFn,
    *,
    classes: int,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    inner_dropout: bool = False,
) -> TransferLearner:
    """Pretraining on `classes` classes, then `steps` steps of `tx` on a new head in each task.

    `grad` takes a `Batch` with labels in `[0, classes)`. The task has `ways` classes or fewer. The
    new head starts at zero. `finetune` starts so, too, and adapts the features as well.

    The paper's code differs in two ways. It draws the new head at random, and its steps take
    batches of 4 examples, 100 times through the support set. Here each step takes the whole support
    set, so that the result does not depend on a draw.

    Dropout in the features is on in pretraining. In a task it is on only with `inner_dropout`, with
    one mask for all steps.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> learner = jaxdl.linear_probe(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=2, tx=optax.sgd(1.0), steps=20
    ... )
    >>> key, x = jax.random.key(0), jnp.eye(2)
    >>> params = learner.init(key, x)  # a net trains them by learner.grad
    >>> adapted = jax.jit(learner.adapt)(key, params, jaxdl.Batch(x, y=jnp.array([1, 0])))
    >>> learner.predict(adapted, x).argmax(axis=1).tolist()
    [1, 0]
    """
    net, default_steps = with_head(features, classes), steps
    check_tx(tx)

    def classify(head: Linear, hidden: Float[Array, "n width"]) -> Float[Array, "n ways"]:
        return hidden @ head.kernel + head.bias[None]

    def adapt(key: Key, params: Headed, support: Batch, steps: int | None = None) -> Headed:
        depth = default_steps if steps is None else steps
        masks = key if inner_dropout else None
        given = support_features(features, params.features, support, masks)
        start = Linear(jnp.zeros((given.x.shape[1], ways)), jnp.zeros(ways))
        return Headed(params.features, *train_head(classify, start, loss, given, tx, depth))

    def predict(
        adapted: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        hidden = flat_features(features, adapted.features, x, key=key, weight=weight)
        return classify(Linear(adapted.kernel, adapted.bias), hidden)

    return TransferLearner(net.init, adapt, predict, of_loss(objective(net, loss)))
