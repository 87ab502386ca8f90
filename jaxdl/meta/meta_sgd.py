"""Meta-SGD (Li, Zhou, Chen, Li 2017, arXiv:1707.09835).

The meta-parameters are an initialisation, and a learning rate for each of its numbers. Inner steps
multiply the gradient by these rates, number by number. A rate may become negative. The query loss
is differentiated by both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.learned_steps import learned_steps
from jaxdl.meta.memory import auto
from jaxdl.meta.rates import scale_by_rates
from jaxdl.types import Key, LossFn, MetaLearner, Model, Params


class WithRates(NamedTuple):
    """An initialisation, and a learning rate for each of its numbers."""

    start: Params
    rates: Params


def meta_sgd(
    model: Model,
    loss: LossFn,
    *,
    steps: int = 1,
    initial_lr: tuple[float, float] = (0.005, 0.1),
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """Meta-SGD with `steps` inner steps, all with the same rates. The paper takes one.

    The rates are learned for so many steps. More steps in evaluation may diverge.

    `params` are a `WithRates`, and `adapted` are parameters of `model`. The loss, dropout, the
    estimator, and tasks with fewer classes are as in `maml`.

    Args:
        initial_lr: the range of the initial learning rate, which is drawn uniformly. All numbers
            have the same one, as in the paper. Two equal numbers leave nothing to chance.

    Raises:
        InputError: if `steps` is below 0, or `initial_lr` is no range, or an empty one.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.meta_sgd(
    ...     jaxdl.mlp((8, 1)), jaxdl.mean_squared_error, initial_lr=(0.01, 0.01)
    ... )
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> jax.tree.map(jnp.shape, params.rates) == jax.tree.map(jnp.shape, params.start)
    True
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(2), params, episode.support)
    >>> learner.predict(adapted, episode.query.x).shape
    (10, 1)
    """
    if np.shape(initial_lr) != (2,):
        raise InputError(
            f"`initial_lr={initial_lr}` is no range. Give two numbers; ({initial_lr}, {initial_lr})"
            " leaves nothing to chance"
        )
    low, high = initial_lr
    if not low <= high:
        raise InputError(f"`initial_lr={initial_lr}`: the first number is larger. Swap the two")

    def beside(key: Key, start: Params) -> WithRates:
        # Flax, whose nets draw with this key, folds in numbers of 32 bits.
        rate = jax.random.uniform(jax.random.fold_in(key, 1), minval=low, maxval=high)
        return WithRates(start, jax.tree.map(lambda leaf: jnp.full_like(leaf, rate), start))

    return learned_steps(
        model,
        loss,
        beside=beside,
        tx=scale_by_rates(),
        steps=steps,
        estimator=estimator,
        inner_dropout=inner_dropout,
    )
