"""Reptile (Nichol, Achiam, Schulman 2018, arXiv:1803.02999).

The meta-parameters are an initialisation. Ordinary training on a task adapts it. The meta-gradient
is the way back from the adapted parameters to the initialisation. It is no derivative of any loss.
"""

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.grads import leading_axis, objective
from jaxdl.meta.base import predict_of
from jaxdl.meta.minibatches import descend_by_minibatches
from jaxdl.optim.check import check_tx
from jaxdl.types import (
    Array,
    Batch,
    Count,
    Episode,
    Grads,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Model,
    Params,
)


def reptile(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    batch_size: int | None = None,
    inner_dropout: bool = False,
) -> MetaLearner:
    """Reptile with `steps` inner steps of `tx`, which may be any transformation of Optax.

    `grad` trains on support and query examples together, because Reptile needs no queries. In the
    paper's code, a training task is one set of examples, too (`--train-shots`). `adapt` trains on
    the support set alone. The metrics of `grad` are those of the query examples after training, so
    they are lower than on queries that are new.

    The meta-gradient is the mean over tasks of `params - adapted`. It is not divided by the inner
    learning rate, because `tx` may have none. An outer `optax.sgd(epsilon)` then is the paper's
    update: it moves the initialisation by the share `epsilon` towards the adapted parameters. An
    outer Adam does not see the scale.

    One thing differs from the paper's code: an inner Adam starts anew in each task, and its moments
    are not kept from task to task.

    Args:
        steps: 1 or more. `adapt(..., steps=50)` is the paper's evaluation on Omniglot.
        batch_size: examples per inner step, drawn by the key without replacement, epoch by epoch.
            None takes all of them.
        inner_dropout: Dropout in inner steps. There is no other dropout.

    Raises:
        InputError: if `steps` or `batch_size` is below 1.

    >>> import jax, optax, jaxdl
    >>> learner = jaxdl.reptile(
    ...     jaxdl.mlp((8, 1)), jaxdl.mean_squared_error, tx=optax.sgd(0.02), steps=5, batch_size=10
    ... )
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> grads, metrics = jax.jit(learner.grad)(jax.random.key(2), 0, params, episode)
    >>> params = optax.apply_updates(params, jax.tree.map(lambda leaf: -0.1 * leaf, grads))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(3), params, episode.support)
    >>> learner.predict(adapted, episode.query.x).shape
    (10, 1)
    """
    inner_loss = objective(model, loss)
    check_tx(tx)
    if steps < 1:
        raise InputError(f"`steps={steps}`: choose 1 or more inner steps")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"`batch_size={batch_size}`: choose 1 or more examples per inner step")
    trained_steps = steps

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Params:
        depth = trained_steps if steps is None else steps
        return descend_by_minibatches(
            inner_loss,
            params,
            tx,
            support,
            size=batch_size,
            steps=depth,
            key=key,
            dropout=inner_dropout,
        )

    predict = predict_of(model)

    def grad(key: Key, step: Count, params: Params, episode: Episode) -> tuple[Grads, Metrics]:
        del step  # it is the same at all times
        adapted = adapt(key, params, merged(episode))
        _, metrics = inner_loss(adapted, None, episode.query)
        return jax.tree.map(jnp.subtract, params, adapted), metrics

    return MetaLearner(model.init, adapt, predict, grad)


def merged(episode: Episode) -> Batch:
    """The examples of support and query set in one batch."""

    def weight(part: Batch) -> Array:
        return jnp.ones(leading_axis(part)) if part.weight is None else part.weight

    support, query = episode
    if support.weight is not None or query.weight is not None:
        support, query = (part._replace(weight=weight(part)) for part in (support, query))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), support, query)
