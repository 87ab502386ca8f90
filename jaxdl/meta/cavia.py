"""CAVIA, context adaptation (Zintgraf et al. 2019, arXiv:1810.03642).

The net has more inputs than the data: context parameters. Inner steps adapt them alone, from zero.
The outer loss trains the parameters of the net, through these steps. So all tasks share the net,
and the adapted state of a task is a few numbers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Shaped

from jaxdl.errors import InputError
from jaxdl.grads import objective
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.optim.check import check_steps
from jaxdl.types import (
    Array,
    Batch,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Model,
    Params,
    PyTree,
    Scalar,
    Weight,
)


class InContext(NamedTuple):
    """The adapted state: the net's parameters, which all tasks share, and the context."""

    params: Params
    context: Float[Array, " contexts"]


def cavia(
    model: Model,
    loss: LossFn,
    *,
    contexts: int = 5,
    inner_lr: float = 1.0,
    steps: int = 1,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """CAVIA for dense nets: `contexts` numbers stand behind the flattened inputs of each example.

    `params` are those of `model` for these wider inputs. The context is no meta-parameter, because
    it begins at zero in each task. The defaults are the paper's for sine waves. The loss, dropout,
    the estimator, and tasks with fewer classes are as in `maml`.

    One thing of the paper is left out: modulated channels (FiLM) in nets of convolutions.

    Args:
        contexts: number of context parameters.
        inner_lr: learning rate of the inner steps.

    Raises:
        InputError: if `contexts` is below 1 or `steps` is below 0; at init, if the inputs are no
            array.

    >>> import jax, jaxdl
    >>> learner = jaxdl.cavia(jaxdl.mlp((40, 40, 1)), jaxdl.mean_squared_error)
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(2), params, episode.support)
    >>> adapted.context.shape, learner.predict(adapted, episode.query.x).shape
    ((5,), (10, 1))
    """
    value = objective(model, loss)
    if contexts < 1:
        raise InputError(f"`contexts={contexts}`: choose 1 or more context parameters")
    check_steps(steps)
    tx, trained_steps = optax.sgd(inner_lr), steps

    def init(key: Key, x: PyTree) -> Params:
        return model.init(key, with_context(x, jnp.zeros(contexts)))

    def inner_loss(
        context: Array, key: Key | None, params: Params, support: Batch
    ) -> tuple[Scalar, Metrics]:
        return value(params, key, support._replace(x=with_context(support.x, context)))

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> InContext:
        depth = trained_steps if steps is None else steps
        start = jnp.zeros(contexts, jax.tree.leaves(params)[0].dtype)
        masks = key if inner_dropout else None
        options: dict[str, Any] = {"steps": depth, "key": masks, "estimator": estimator}
        context, _ = descend(inner_loss, start, tx, params, support, **options)
        return InContext(params, context)

    def predict(
        adapted: InContext, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        return model.apply(adapted.params, with_context(x, adapted.context), key=key, weight=weight)

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))


def with_context(x: PyTree, context: Float[Array, " contexts"]) -> Shaped[Array, "n both"]:
    """Flattened inputs, and behind each the same context."""
    if not hasattr(x, "reshape"):
        raise InputError(
            "cavia puts its context behind an array of inputs, and these are several arrays."
            " Concatenate them to one"
        )
    flat = x.reshape(x.shape[0], -1)
    # Integers stay integers, so that a net which refuses them does so.
    same = jnp.broadcast_to(context.astype(flat.dtype), (flat.shape[0], context.size))
    return jnp.concatenate([flat, same], axis=1)
