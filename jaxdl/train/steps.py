"""Training steps: a gradient and an Optax update, and the states that they begin with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.losses import without_void
from jaxdl.parallel import device_key, device_share, mean_over_devices, times
from jaxdl.types import (
    Array,
    GradFn,
    Key,
    LossFn,
    Metrics,
    Params,
    PyTree,
    StatefulModel,
    StepFn,
    TrainState,
)
from jaxdl.xla import together


def init_state(params: Params, tx: optax.GradientTransformation, stats: PyTree = ()) -> TrainState:
    """The state before step 0."""
    return TrainState(jnp.int32(0), params, tx.init(params), stats)


def init_states(
    init: Callable[[Key], Any],
    keys: Key,
    tx: optax.GradientTransformation,
    *,
    with_stats: bool = False,
) -> TrainState:
    """One state a seed, stacked along a leading axis `[seeds]`; they share the step counter.

    `init(key)` makes parameters; `with_stats`: a pair of parameters and statistics.
    """

    def start(key: Key) -> TrainState:
        made = init(key)
        params, stats = made if with_stats else (made, ())
        return init_state(params, tx, stats)

    return lax.map(start, keys)._replace(step=jnp.int32(0))


def make_step(grad: GradFn, tx: optax.GradientTransformation) -> StepFn:
    """A training step: the gradient of a batch, and Optax's update."""

    def step(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        grads, metrics = grad(key, state.step, state.params, batch)
        return _update(state, tx, grads), metrics

    return step


def supervised_step(
    model: StatefulModel,
    loss: LossFn,
    tx: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> StepFn:
    """A training step on one `Batch` of a net with statistics, averaged over a device axis.

    `make_step` on `grads.supervised` is the same for a net without. Give `axis_name` to the model
    too, so that its batch norm sees the whole batch. Keys and means are those of `over_devices`.
    """

    def step(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key, weight = device_key(key, axis_name), batch.weight
        x, share = without_void(batch.x, weight), device_share(batch, axis_name)

        def objective(params: Params) -> tuple[Array, Any]:
            y, stats = model.apply(params, state.stats, x, key=key, weight=weight, mode="train")
            # Before the gradient: batch norm carries it from one device to another.
            value, metrics = times(loss(y, batch.y, weight), share)
            return value, (metrics, stats)

        grads, (metrics, stats) = jax.grad(objective, has_aux=True)(state.params)
        grads, metrics = mean_over_devices((grads, metrics), axis_name)
        return _update(state, tx, grads)._replace(stats=stats), metrics

    return step


def _update(state: TrainState, tx: optax.GradientTransformation, grads: Any) -> TrainState:
    updates, opt_state = tx.update(together(grads), state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state)
