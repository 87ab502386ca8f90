"""ES-MAML (Song, Gao, Yang, Choromanski, Pacchiano, Tang 2019, arXiv:1910.01215), zero-order.

The meta-parameters are an initialisation. Gaussian noise moves it there and back. Each moved
initialisation is adapted to the task, and the losses of queries tell which way is better. Nothing
is differentiated through the adaptation, so there is no second derivative.
"""

import optax

from jaxdl.grads import objective
from jaxdl.meta.base import predict_of
from jaxdl.meta.estimators import Estimator, exact
from jaxdl.meta.evolution import es_query_grad
from jaxdl.meta.inner import descend
from jaxdl.optim.check import check_steps, check_tx
from jaxdl.types import (
    Batch,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Model,
    Params,
    Scalar,
)


def es_maml(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    population: int = 16,
    sigma: float = 0.1,
    chunk: int | None = None,
    estimator: Estimator = exact,
    inner_dropout: bool = False,
) -> MetaLearner:
    """ES-MAML with `steps` inner steps of `tx`, which may be any transformation of Optax.

    `params` and `adapted` are parameters of `model`. The loss, dropout, and tasks with fewer
    classes are as in `maml`. The metrics of `grad` are means over the moved initialisations.

    It costs `2 * population` adaptations per task, and needs more steps than `maml`, the larger the
    net the more: the estimate has only as many directions as there are pairs in a step. So it is
    for small nets, and for adaptations that have no derivative. An adaptation of your own takes
    `jaxdl.es_query_grad` instead.

    This is the form for supervised tasks. The paper learns policies, and adapts them by ES gradient
    steps or by hill climbing, which is not here. For the first, with the paper's numbers, write
    `estimator=jaxdl.es_estimator(population=20, sigma=0.1)` and
    `tx=optax.sgd(0.05)`. `adapt` then depends on its key.

    Deviations: in the paper each perturbation has a task of its own, which is `population=1` with
    many tasks per step. The authors' code divides the values of a step by their standard deviation.
    An outer Adam does not see such a scale, so it is left out. Neither ranks the values.

    Args:
        population: pairs of perturbations per task.
        sigma: standard deviation of the perturbations.
        chunk: pairs that are computed together, a divisor of `population`. None takes all.
        estimator: of the inner gradients, whose own derivatives are never asked for.

    Raises:
        InputError: if `steps` is below 0, or `population` or `sigma` is not above 0, or `chunk`
            does not divide `population`.

    >>> import jax, optax, jaxdl
    >>> learner = jaxdl.es_maml(
    ...     jaxdl.mlp((8, 1)), jaxdl.mean_squared_error, tx=optax.sgd(0.01), steps=1
    ... )
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(2), params, episode.support)
    >>> learner.predict(adapted, episode.query.x).shape
    (10, 1)
    >>> grads, metrics = jax.jit(learner.grad)(jax.random.key(3), 0, params, episode)
    >>> jax.tree.structure(grads) == jax.tree.structure(params)
    True
    """
    check_steps(steps)
    check_tx(tx)
    value, trained_steps = objective(model, loss), steps

    def inner_loss(params: Params, key: Key, support: Batch) -> tuple[Scalar, Metrics]:
        return value(params, key if inner_dropout else None, support)

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Params:
        depth = trained_steps if steps is None else steps
        args = inner_loss, params, tx, support
        return descend(*args, steps=depth, key=key, estimator=estimator)[0]

    predict = predict_of(model)

    grad = es_query_grad(adapt, predict, loss, population=population, sigma=sigma, chunk=chunk)
    return MetaLearner(model.init, adapt, predict, grad)
