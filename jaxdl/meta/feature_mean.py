"""The mean of features in training, as a parameter beside the net that classifies by them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxdl.grads import Objective
from jaxdl.losses import measured, without_void
from jaxdl.meta.head import Headed, flat_features, with_head
from jaxdl.meta.vectors import mean_row
from jaxdl.types import (
    Array,
    Batch,
    Count,
    Embedding,
    InitFn,
    Key,
    LossFn,
    Metrics,
    PyTree,
    Scalar,
)


class WithMean(NamedTuple):
    """The net that classifies the training classes, and the mean of its features in training."""

    net: Headed
    mean: Float[Array, " width"]


RATE = 0.01
"""Share of the newest batch in the running average: it spans about a hundred batches."""


def averaging_mean(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser `tx` for a net, beside which a `WithMean` has its running average.

    Adam, for one, moves the mean by its learning rate per step, however far it is away. For other
    parameters the optimiser is `tx` itself.

    >>> import jax.numpy as jnp, optax, jaxdl
    >>> params, grads = WithMean(jnp.zeros(2), jnp.zeros(2)), WithMean(jnp.ones(2), jnp.full(2, -8))
    >>> tx = jaxdl.averaging_mean(optax.adam(0.5))
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> [round(float(each[0]), 2) for each in updates]  # the mean goes 0.01 of the way to 8
    [-0.5, 0.08]
    """
    whole = optax.with_extra_args_support(tx)
    both = optax.with_extra_args_support(
        optax.partition({"net": tx, "mean": optax.sgd(RATE)}, WithMean("net", "mean"))  # type: ignore[arg-type]
    )

    def init(params: Any) -> Any:
        return (both if isinstance(params, WithMean) else whole).init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        chosen = both if isinstance(updates, WithMean) else whole
        return chosen.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


def with_mean(features: Embedding, loss: LossFn, classes: int) -> tuple[InitFn, Objective]:
    """Initial parameters, and the objective that trains net and mean on labelled examples.

    The gradient of the mean is its distance from the mean of the batch. With SGD, and so with
    `averaging_mean`, it is a running average. The net gets no gradient from this, and the reported
    loss does not contain it.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> init, value = with_mean(jaxdl.mlp((2,)), jaxdl.cross_entropy, classes=3)
    >>> x, key = jnp.ones((1, 4)), jax.random.key(0)
    >>> params = init(key, x)
    >>> grads, _ = jax.grad(value, has_aux=True)(params, None, jaxdl.Batch(x, jnp.array([2])))
    >>> hidden = jaxdl.mlp((2,)).apply(params.net.features, x)
    >>> jnp.allclose(grads.mean, params.mean - hidden[0])
    Array(True, dtype=bool)
    """
    net = with_head(features, classes)

    def init(key: Key, x: PyTree) -> WithMean:
        params = net.init(key, x)
        return WithMean(params, jnp.zeros(params.kernel.shape[0]))

    def value(
        params: WithMean, key: Key | None, batch: Batch, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        del step  # the loss does not change with training time
        x, weight = without_void(batch.x, batch.weight), batch.weight
        hidden = flat_features(features, params.net.features, x, key=key, weight=weight)
        logits = hidden @ params.net.kernel + params.net.bias[None]
        found, metrics = measured(loss, logits, batch.y, weight)
        away = params.mean - jax.lax.stop_gradient(mean_row(hidden, weight))
        return found + jnp.sum(jnp.square(away)) / 2, metrics

    return init, value
