"""Proto-MAML (Triantafillou et al. 2020, arXiv:1903.03096).

A prototypical network is a linear classifier: with the prototypes c, the weights `2 c` and the
biases `-|c|^2` give its logits, but for a number that all classes share. Inside a task, the head
starts from these, and a few gradient steps adapt head and embedding, as in MAML. The meta-gradient
passes through the steps and through the initial head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from jaxdl.losses import measured, without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.estimators import Estimator, first_order
from jaxdl.meta.head import Headed, flat_features, with_head
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.meta.probe.verdict import check
from jaxdl.meta.vectors import class_means
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Params,
    PyTree,
    Scalar,
    Weight,
)


class ProtoMAMLAdapted(NamedTuple):
    """The adapted embedding and head, and which classes the support set has."""

    net: Headed
    present: Bool[Array, " ways"]


def proto_maml(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """Proto-MAML with `steps` inner steps of `tx` on the embedding `features`.

    The meta-parameters are those of the embedding alone. So training tasks and test tasks may have
    different `ways`. Predictions are logits `[n, ways]`. With `steps=0` it is `protonet`. `loss` is
    both the inner and the outer loss. A class without a support example that counts has the logit
    -inf, as in `protonet`.

    Dropout in adaptation is on only with `inner_dropout`, for prototypes and for each inner step.

    Args:
        tx: for embedding and head. Its derivatives are tried on a few numbers first, as in `maml`.
        estimator: of the meta-gradient. The paper's is `first_order`: its gradient, too, passes
            through the initial head.

    Raises:
        InputError: as `maml`.

    Warns:
        InnerOptimiserWarning: as `maml`.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> options = {"ways": 5, "tx": optax.sgd(0.1), "steps": 2}
    >>> learner = jaxdl.proto_maml(jaxdl.mlp((16,)), jaxdl.cross_entropy, **options)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)  # 2 shots of 5 classes
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> adapted.net.kernel.shape, jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    ((16, 5), (7, 5))
    """
    net = with_head(features, ways)
    check(tx, steps=steps, first_order=estimator is first_order)
    trained_steps = steps

    def predict(
        adapted: ProtoMAMLAdapted,
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Weight | None = None,
    ) -> Float[Array, "n ways"]:
        logits = net.apply(adapted.net, x, key=key, weight=weight)
        return jnp.where(adapted.present[None], logits, -jnp.inf)

    def inner_loss(
        params: Headed, key: Key | None, support: Batch, present: Bool[Array, " ways"]
    ) -> tuple[Scalar, Metrics]:
        adapted, weight = ProtoMAMLAdapted(params, present), support.weight
        logits = predict(adapted, support.x, key=key, weight=weight)
        return measured(loss, logits, support.y, weight)

    def adapt(
        key: Key, params: Params, support: Batch, steps: int | None = None
    ) -> ProtoMAMLAdapted:
        head_key, steps_key = jax.random.split(key) if inner_dropout else (None, None)
        support = support._replace(x=without_void(support.x, support.weight))
        hidden = flat_features(features, params, support.x, key=head_key, weight=support.weight)
        means, present = class_means(hidden, support.y, ways, support.weight)
        start = Headed(params, 2 * means.T, -jnp.sum(jnp.square(means), axis=1))
        depth = trained_steps if steps is None else steps
        args = inner_loss, start, tx, support, present
        adapted, _ = descend(*args, steps=depth, key=steps_key, estimator=estimator)
        return ProtoMAMLAdapted(adapted, present)

    return MetaLearner(features.init, adapt, predict, through_adaptation(adapt, predict, loss))
