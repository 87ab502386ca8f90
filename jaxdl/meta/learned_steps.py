"""MAML that learns how to transform inner gradients: what `meta_sgd` and `meta_curvature` share."""

from collections.abc import Callable

import optax

from jaxdl.grads import objective
from jaxdl.meta.base import predict_of, through_adaptation
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.inner import descend
from jaxdl.meta.rates import at_each_step
from jaxdl.optim.check import check_steps
from jaxdl.types import Key, LossFn, MetaLearner, Model, Params, PyTree

Pair = tuple[Params, PyTree]
"""An initialisation, and what the inner steps read beside it."""


def learned_steps(
    model: Model,
    loss: LossFn,
    *,
    beside: Callable[[Key, Params], Pair],
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator,
    inner_dropout: bool,
) -> MetaLearner:
    """MAML with `steps` inner steps of `tx`, which reads a part of the meta-parameters.

    The meta-parameters are a `Pair`, and `adapted` are parameters of `model`. The query loss is
    differentiated by both of the pair.

    Args:
        beside: `(key, initialisation) -> pair`: the meta-parameters at the start of training.
        tx: it takes the second of the pair as the extra argument `rates`, the same at each step.

    Raises:
        InputError: if `steps` is below 0.
    """
    inner_loss = objective(model, loss)
    check_steps(steps)
    trained_steps = steps

    def init(key: Key, x: PyTree) -> Pair:
        return beside(key, model.init(key, x))

    def adapt(key: Key, params: Pair, support: PyTree, steps: int | None = None) -> Params:
        start, learned = params
        depth = trained_steps if steps is None else steps
        return descend(
            inner_loss,
            start,
            tx,
            support,
            steps=depth,
            key=key if inner_dropout else None,
            estimator=estimator,
            rates=at_each_step(learned, depth),
        )[0]

    predict = predict_of(model)

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))
