"""Trainings that differ in numbers, as one program: the numbers are a part of the parameters.

So seeds, validation and checkpoints of a training serve a grid of hyper-parameters unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdl.types import (
    Batch,
    Episode,
    Grads,
    Key,
    MetaLearner,
    Metrics,
    Params,
    PyTree,
    Scalar,
    StepFn,
    TrainState,
    Weight,
)

Values = Mapping[str, Scalar]


class Varied(NamedTuple):
    """Parameters of a learner, and the hyper-parameters with which it learns, by name."""

    values: Values
    params: Params


def varied(learner_of: Callable[[Values], Any]) -> MetaLearner:
    """The learner whose hyper-parameters stand in its parameters, which are `Varied`.

    `init` takes a pair of a key and the values in place of a key. `grad` is 0 for the values.

    >>> import jax, jax.numpy as jnp, jaxdl, optax
    >>> def learner_of(values):
    ...     tx, loss = optax.sgd(values["inner_lr"]), jaxdl.mean_squared_error
    ...     return jaxdl.maml(jaxdl.mlp((1,)), loss, tx=tx, steps=1)
    >>> learner, x = varied(learner_of), jnp.ones((2, 1))
    >>> key, values = jax.random.key(0), {"inner_lr": jnp.float32([0.0, 0.1])}
    >>> params = jax.vmap(lambda values: learner.init((key, values), x))(values)
    >>> def predict(params):
    ...     return learner.predict(learner.adapt(key, params, jaxdl.Batch(x, 0 * x)), x)
    >>> without, with_step = abs(jax.jit(jax.vmap(predict))(params)[:, 0, 0]).tolist()
    >>> with_step < without  # the target is 0
    True
    """

    def init(key: Any, x: PyTree) -> Varied:
        own, values = key
        return Varied(values, learner_of(values).init(own, x))

    def adapt(key: Key, params: Varied, support: Batch, steps: int | None = None) -> PyTree:
        learner = learner_of(params.values)
        return params.values, learner.adapt(key, params.params, support, steps)

    def predict(
        adapted: Any, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        values, own = adapted
        return learner_of(values).predict(own, x, key=key, weight=weight)

    def grad(key: Key, step: Any, params: Varied, episode: Episode) -> tuple[Grads, Metrics]:
        grads, metrics = learner_of(params.values).grad(key, step, params.params, episode)
        return Varied({name: 0 * value for name, value in params.values.items()}, grads), metrics

    return MetaLearner(init, adapt, predict, grad)


def varied_step(step_of: Callable[[Values], StepFn]) -> StepFn:
    """The training step of a state whose parameters are `Varied`, by the step of its values.

    The optimiser's state is that of the parameters alone.

    >>> import jax, jax.numpy as jnp, jaxdl, optax
    >>> grad = jaxdl.of_loss(lambda w, key, batch, step=None: (w**2 / 2, {}))
    >>> step = varied_step(lambda values: jaxdl.make_step(grad, optax.sgd(values["lr"])))
    >>> state = jaxdl.init_state(jnp.float32(1), optax.sgd(0.0))
    >>> state = state._replace(params=Varied({"lr": jnp.float32(0.25)}, state.params))
    >>> float(step(jax.random.key(0), state, None)[0].params.params)
    0.75
    """

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        values, params = state.params
        new, metrics = step_of(values)(key, state._replace(params=params), batch)
        return new._replace(params=Varied(values, new.params)), metrics

    return step
