"""Training steps (a gradient, then an Optax update), and their initial states."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.losses import measured, without_void
from jaxdl.parallel import device_key, device_share, mean_over_devices, on_each_device, times
from jaxdl.train.memory import refuse_too_large
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
    """The state before step 0 of one training, without a seed axis.

    >>> import jaxdl, jax.numpy as jnp, optax
    >>> state = jaxdl.init_state({"w": jnp.ones(3)}, optax.sgd(0.1, momentum=0.9))
    >>> int(state.step), state.params["w"].tolist(), state.opt_state[0].trace["w"].tolist()
    (0, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])

    Args:
        params: the parameters of a net, any pytree.
        tx: the optimiser; give `make_step` the same one.
        stats: the statistics of a `StatefulModel`; empty for other nets.
    """
    return TrainState(jnp.int32(0), params, tx.init(params), stats)


def init_states(
    init: Callable[[Key], Any],
    keys: Key,
    tx: optax.GradientTransformation,
    *,
    with_stats: bool = False,
) -> TrainState:
    """One state per seed, stacked along a leading axis `[seeds]`; the step counter is shared.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> model, x = jaxdl.mlp((2,)), jnp.zeros((1, 4))
    >>> keys = jaxdl.run_keys(seed=0, seeds=3)
    >>> state = jaxdl.init_states(lambda key: model.init(key, x), keys, optax.sgd(0.1))
    >>> state.step.shape, jax.tree.map(jnp.shape, state.params)
    ((), {'Dense_0': {'bias': (3, 2), 'kernel': (3, 4, 2)}})

    Args:
        init: `key -> params`, or `key -> (params, stats)`.
        keys: the run keys `[seeds]`.
        tx: the optimiser.
        with_stats: whether `init` also returns statistics, as a `StatefulModel` does.

    Raises:
        InputError: if they do not fit into memory.
    """

    def start(key: Key) -> TrainState:
        made = init(key)
        params, stats = made if with_stats else (made, ())
        return init_state(params, tx, stats)

    refuse_too_large(jax.eval_shape(start, keys[0]), len(keys))
    return lax.map(start, keys)._replace(step=jnp.int32(0))


def make_step(grad: GradFn, tx: optax.GradientTransformation) -> StepFn:
    """A training step: the gradient of a batch, and Optax's update.

    The state is a `TrainState`, made by `init_state` with the same `tx`. The metrics are those of
    `grad`, before the update.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> tx = optax.sgd(0.25)
    >>> grad = lambda key, step, params, batch: (params - batch, {"error": abs(params - batch)})
    >>> step = jax.jit(jaxdl.make_step(grad, tx))
    >>> state, metrics = step(jax.random.key(0), jaxdl.init_state(jnp.float32(8), tx), 0)
    >>> int(state.step), float(state.params), float(metrics["error"])  # 8 - 8 / 4
    (1, 6.0, 8.0)
    """

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
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
    """A training step for a net with statistics, on one `Batch`, averaged over a device axis.

    For a net without statistics, use `make_step` on `grads.supervised`. Give `axis_name` to the
    model too, so that its batch norm sees the whole batch. Keys and means are as in `over_devices`.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> def apply(params, mean, x, *, key=None, weight=None, mode):  # params * (x - running mean)
    ...     now = x.mean(keepdims=True) if mode == "train" else mean
    ...     return params * (x - now), (mean + now) / 2
    >>> model = jaxdl.StatefulModel(lambda key, x: (jnp.ones((1, 1)), jnp.zeros((1, 1))), apply)
    >>> tx, batch = optax.sgd(0.25), jaxdl.Batch(x=jnp.array([[2.0], [4.0]]), y=jnp.zeros((2, 1)))
    >>> step = jax.jit(jaxdl.supervised_step(model, jaxdl.mean_squared_error, tx))
    >>> key = jax.random.key(0)
    >>> params, stats = model.init(key, batch.x)
    >>> state, metrics = step(key, jaxdl.init_state(params, tx, stats), batch)
    >>> float(metrics["loss"]), state.params.item(), state.stats.item()  # the net said -1 and 1
    (1.0, 0.5, 1.5)
    """

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        key, weight = device_key(key, axis_name), batch.weight
        x, share = without_void(batch.x, weight), device_share(batch, axis_name)

        def objective(params: Params) -> tuple[Array, Any]:
            y, stats = model.apply(params, state.stats, x, key=key, weight=weight, mode="train")
            # Weighted before the gradient, because batch norm couples the devices' gradients.
            value, metrics = times(measured(loss, y, batch.y, weight), share)
            return value, (metrics, stats)

        own = on_each_device(state.params, axis_name)
        grads, (metrics, stats) = jax.grad(objective, has_aux=True)(own)
        grads, metrics = mean_over_devices((grads, metrics), axis_name)
        return _update(state, tx, grads)._replace(stats=stats), metrics

    return step


def _update(state: TrainState, tx: optax.GradientTransformation, grads: PyTree) -> TrainState:
    updates, opt_state = tx.update(together(grads), state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state)
