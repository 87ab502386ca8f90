"""Meta-Curvature (Park, Oliva 2019, arXiv:1902.03356), in the form MC2.

The meta-parameters are an initialisation, and matrices that transform the gradient of each layer in
the inner steps. The query loss is differentiated by both.
"""

from typing import NamedTuple

from jaxdl.meta.curvature import identities, scale_by_curvature
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.learned_steps import learned_steps
from jaxdl.meta.memory import auto
from jaxdl.types import LossFn, MetaLearner, Model, Params, PyTree


class WithCurvature(NamedTuple):
    """An initialisation, and the curvature of each of its arrays: see `curvature.identities`."""

    start: Params
    curvature: PyTree


def meta_curvature(
    model: Model,
    loss: LossFn,
    *,
    inner_lr: float,
    steps: int,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """Meta-Curvature with `steps` inner steps of learning rate `inner_lr`.

    A kernel `[*filter, inputs, outputs]` has three matrices: for the places of its filter, for its
    inputs and for its outputs. Each begins as the identity, so an untrained learner is MAML. They
    need memory by the square of each axis. The paper describes kernels. Here a bias or a scale has
    a factor per number.

    `params` are a `WithCurvature`, and `adapted` are parameters of `model`. The loss, dropout, the
    estimator, and tasks with fewer classes are as in `maml`.

    Raises:
        InputError: if `steps` is below 0.

    >>> import jax, jaxdl
    >>> learner = jaxdl.meta_curvature(
    ...     jaxdl.mlp((8, 1)), jaxdl.mean_squared_error, inner_lr=0.01, steps=1
    ... )
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> params.curvature["Dense_0"]["kernel"].outputs.shape
    (8, 8)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(2), params, episode.support)
    >>> learner.predict(adapted, episode.query.x).shape
    (10, 1)
    """
    return learned_steps(
        model,
        loss,
        beside=lambda key, start: WithCurvature(start, identities(start)),
        tx=scale_by_curvature(inner_lr),
        steps=steps,
        estimator=estimator,
        inner_dropout=inner_dropout,
    )
