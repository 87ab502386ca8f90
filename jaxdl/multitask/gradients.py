"""Losses and gradients of many tasks on one batch, and the training step that combines them.

A batch is one `Batch`, whose inputs all tasks share, or a tuple of batches of any lengths, one
per task. In the first kind, `y` is `[n, tasks, ...]`, or a tuple of targets `[n, ...]`, one per
task. `weight` is `[n]`, `[n, tasks]` (0 where a task has no label, for example) or a tuple. In the
trunk's statistics of the batch, an example counts by the largest of its weights over tasks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.errors import InputError
from jaxdl.losses import measured, without_void
from jaxdl.multitask.combine import PerTask, TaskMethod
from jaxdl.multitask.sharing import (
    MultiTask,
    TaskParams,
    map_tasks,
    net_keys,
    stack,
    trunk_keys,
)
from jaxdl.parallel import device_key, mean_over_devices, on_each_device, share_of
from jaxdl.types import (
    Batch,
    Count,
    GradFn,
    Grads,
    Key,
    LossFn,
    Metrics,
    Params,
    PyTree,
    Scalar,
    StepFn,
    TrainState,
)

Examples = Batch | tuple[Batch, ...]
"""One batch for all tasks, or one per task: see above."""

TaskLosses = Callable[[TaskParams, Key | None, Examples], tuple[PerTask, Metrics]]
"""`(params, key, batch) -> (losses, metrics)`."""

TaskFn = Callable[..., PyTree]
"""A function of one task: of its head's parameters, its examples and its key."""


class TaskGrads(NamedTuple):
    """Losses `[tasks]`, their gradients in the trunk `[tasks, ...]`, and the gradient per head."""

    losses: PerTask
    trunk: Grads
    heads: tuple[Grads, ...]


def task_losses(net: MultiTask, loss: LossFn | Sequence[LossFn]) -> TaskLosses:
    """The losses of all tasks. Inputs that all tasks share pass through the trunk once.

    `loss` is one for all tasks, or a sequence, one per task. Metrics of a task have its number,
    such as `loss/0`. A metric that all tasks have also has its mean over tasks, such as `loss`.

    Raises:
        InputError: if there are not as many losses as heads; when tracing, if there are not as many
            targets or batches.
    """
    of_head, kinds = _heads(net, loss)

    def values(params: TaskParams, key: Key | None, batch: Examples) -> tuple[PerTask, Metrics]:
        shared, parts = _parts(batch, len(kinds))
        trunk_key, keys = net_keys(key, len(kinds))
        own_keys = list(zip(trunk_keys(trunk_key, len(kinds)), keys, strict=True))

        def features(part: Batch, key: Key | None) -> PyTree:
            x, weight = without_void(part.x, part.weight), part.weight
            return net.trunk.apply(params.trunk, x, key=key, weight=weight)

        z_of_all = None if shared is None else features(shared, trunk_key)

        def of_task(task: int) -> TaskFn:
            def value(own: Params, part: Batch, keys: PyTree) -> tuple[Scalar, Metrics]:
                z = features(part, keys[0]) if shared is None else z_of_all
                return of_head(task)(own, z, part, keys[1])

            return value

        return _gathered(map_tasks(of_task, kinds, params.heads, parts, own_keys))

    return values


def task_grads(net: MultiTask, loss: LossFn | Sequence[LossFn]) -> GradFn:
    """The `GradFn` whose gradients are `TaskGrads`, for methods that need task gradients.

    Tasks with the same inputs share one forward pass of the trunk. Their heads have one forward and
    one backward pass. Only the trunk's backward pass runs per task, batched by `vmap` into one
    program. It needs the memory of one gradient per task, and of the cotangents of the activations
    per task. Tasks with inputs of their own cost the passes of one gradient over all of their
    examples, and the memory of one gradient per task.

    Metrics and errors are those of `task_losses`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> scale = jaxdl.Model(lambda key, x: jnp.ones(()), lambda p, x, key=None, weight=None: p * x)
    >>> net, key = jaxdl.hard_sharing(scale, [scale] * 2), jax.random.key(0)
    >>> batch = jaxdl.Batch(x=jnp.ones((1, 1)), y=jnp.array([[[3.0], [0.0]]]))  # y [n, tasks, ...]
    >>> grad = jax.jit(jaxdl.task_grads(net, jaxdl.mean_squared_error))
    >>> grads, metrics = grad(key, 0, net.init(key, batch.x), batch)  # the net says 1 to all
    >>> grads.losses.tolist(), grads.trunk.tolist(), [head.item() for head in grads.heads]
    ([4.0, 1.0], [-4.0, 2.0], [-4.0, 2.0])
    >>> sorted(metrics)
    ['loss', 'loss/0', 'loss/1']
    """
    of_head, kinds = _heads(net, loss)
    tasks = len(kinds)

    def grads(
        key: Key, step: Count, params: TaskParams, batch: Examples
    ) -> tuple[TaskGrads, Metrics]:
        del step  # losses do not change with training time
        shared, parts = _parts(batch, tasks)
        trunk_key, keys = net_keys(key, tasks)

        def features(trunk: Params, part: Batch, key: Key | None) -> PyTree:
            x, weight = without_void(part.x, part.weight), part.weight
            return net.trunk.apply(trunk, x, key=key, weight=weight)

        if shared is None:
            own_keys = list(zip(trunk_keys(trunk_key, tasks), keys, strict=True))

            def of_task(task: int) -> TaskFn:
                def value(trunk: Params, own: Params, part: Batch, keys: PyTree) -> PyTree:
                    return of_head(task)(own, features(trunk, part, keys[0]), part, keys[1])

                grad = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
                return partial(grad, params.trunk)

            found = map_tasks(of_task, kinds, params.heads, parts, own_keys)
            losses, metrics = _gathered([value for value, _ in found])
            trunks, heads = zip(*(grad for _, grad in found), strict=True)
            return TaskGrads(losses, stack(trunks), heads), metrics

        z, pull = jax.vjp(lambda trunk: features(trunk, shared, trunk_key), params.trunk)

        def of_heads(heads: PyTree, zs: PyTree) -> tuple[PerTask, Metrics]:
            return _gathered(map_tasks(of_head, kinds, heads, zs, parts, keys))

        # Each task gets its own copy of z, so one backward pass gives one cotangent per task.
        losses, pull_heads, metrics = jax.vjp(of_heads, params.heads, (z,) * tasks, has_aux=True)
        heads, cotangents = pull_heads(jnp.ones_like(losses))
        (trunk,) = jax.vmap(pull)(stack(cotangents))
        return TaskGrads(losses, trunk, heads), metrics

    return grads


def multitask_step(
    net: MultiTask,
    loss: LossFn | Sequence[LossFn],
    method: TaskMethod,
    tx: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> StepFn:
    """A training step: `method` combines the task gradients, and `tx` makes the update.

    The state is `train.init_state(params, optax.chain(method, tx))`.

    A method that weighs losses costs one gradient: that of the weighted sum of losses, heads
    included, as its paper defines it. The weights are the cotangent of the losses. With another
    method, the trunk takes the combined gradient, and each head takes that of its own task's loss.

    Losses and gradients are averaged over a device axis before they are combined. For each task, a
    device counts by the sum of the weights of its examples. Each device draws dropout masks of its
    own. `method` draws the same random numbers on all devices.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> scale = jaxdl.Model(lambda key, x: jnp.ones(()), lambda p, x, key=None, weight=None: p * x)
    >>> net, key = jaxdl.hard_sharing(scale, [scale] * 2), jax.random.key(0)
    >>> batch = jaxdl.Batch(x=jnp.ones((1, 1)), y=jnp.array([[[3.0], [0.0]]]))
    >>> method, tx = jaxdl.pcgrad(), optax.sgd(0.25)
    >>> step = jax.jit(jaxdl.multitask_step(net, jaxdl.mean_squared_error, method, tx))
    >>> state = jaxdl.init_state(net.init(key, batch.x), optax.chain(method, tx))
    >>> state, metrics = step(key, state, batch)
    >>> state.params.trunk.item()  # the tasks pull it in opposite directions, so it stays
    1.0
    >>> [head.item() for head in state.params.heads]  # 1 - 4 * -0.25 and 1 - 2 * 0.25
    [2.0, 0.5]

    Raises:
        InputError: if `method` is no `TaskMethod`; when tracing, if the optimiser's state does not
            fit `method` and `tx`.
    """
    if not isinstance(method, TaskMethod):
        raise InputError(
            "this method does not say whether it weighs losses: make it with weigh_losses or"
            " weigh_gradients, and chain other transformations into `tx`"
        )
    losses_of, grads_of = task_losses(net, loss), task_grads(net, loss)
    tx = optax.with_extra_args_support(tx)

    def step(key: Key, state: TrainState, batch: Examples) -> tuple[TrainState, Metrics]:
        _check(state, optax.chain(method, tx))
        method_state, tx_state = state.opt_state
        net_key, method_key = jax.random.split(key)
        net_key, net_params = (
            device_key(net_key, axis_name),
            on_each_device(state.params, axis_name),
        )
        shares = _shares(batch, len(net.heads), axis_name)

        average = partial(mean_over_devices, axis_name=axis_name)
        grads: Grads
        if method.weighs_losses:
            losses, pull, metrics = jax.vjp(
                lambda params: losses_of(params, net_key, batch), net_params, has_aux=True
            )
            losses = average(_times(losses, shares))
            # The method returns a weighted sum of its updates. With unit vectors as updates, this
            # sum is the vector of the weights.
            unit = jnp.eye(len(losses), dtype=losses.dtype)
            weights, method_state = method.update(unit, method_state, losses=losses, key=method_key)
            grads = average(pull(_times(weights, shares))[0])
        else:
            each, metrics = grads_of(net_key, state.step, net_params, batch)
            losses, trunks, heads = average(_shared_out(each, shares))
            trunk, method_state = method.update(trunks, method_state, losses=losses, key=method_key)
            grads = TaskParams(trunk, heads)

        updates, tx_state = tx.update(grads, tx_state, state.params)
        params = optax.apply_updates(state.params, updates)
        opt_state = method_state, tx_state
        new = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
        return new, _averaged(metrics, shares, axis_name)

    return step


def _shares(batch: Examples, tasks: int, axis_name: str | None) -> PerTask | None:
    """The weight of this device's examples per task `[tasks]`, relative to the mean over devices.

    None if there are no weights, or no other devices.
    """
    _, parts = _parts(batch, tasks)
    sums = [jnp.sum(part.weight) for part in parts if part.weight is not None]
    if axis_name is None or len(sums) < tasks:
        return None
    return share_of(jnp.stack(sums).astype(float), axis_name)


def _times(tree: PyTree, shares: PerTask | None) -> PyTree:
    """A tree stacked `[tasks, ...]`, with each task's part times its share."""
    if shares is None:
        return tree
    return jax.vmap(lambda own, share: jax.tree.map(lambda leaf: leaf * share, own))(tree, shares)


def _shared_out(found: TaskGrads, shares: PerTask | None) -> TaskGrads:
    if shares is None:
        return found
    heads = tuple(
        jax.tree.map(lambda leaf, task=task: leaf * shares[task], own)
        for task, own in enumerate(found.heads)
    )
    return TaskGrads(_times(found.losses, shares), _times(found.trunk, shares), heads)


def _averaged(metrics: Metrics, shares: PerTask | None, axis_name: str | None) -> Metrics:
    """The metrics of `_gathered`, averaged over devices. Those of a task count by its shares."""
    if shares is None:
        return mean_over_devices(metrics, axis_name)
    each: list[Metrics] = [{} for _ in shares]
    for full_name, value in metrics.items():
        name, _, task = full_name.rpartition("/")
        if task.isdecimal() and f"{full_name}/0" not in metrics:  # no mean of a metric like top/5
            each[int(task)][name] = value * shares[int(task)]
    return _named(lax.pmean(each, axis_name))


def _check(state: TrainState, tx: optax.GradientTransformation) -> None:
    structures: list[object] = [
        jax.tree.structure(tree)
        for tree in (state.opt_state, jax.eval_shape(tx.init, state.params))
    ]
    if structures[0] != structures[1]:
        raise InputError(
            "the optimiser's state is not that of the method and the optimiser together:"
            " make it with init_state(params, optax.chain(method, tx))"
        )


def _heads(
    net: MultiTask, loss: LossFn | Sequence[LossFn]
) -> tuple[Callable[[int], TaskFn], list[object]]:
    """`task -> (own, features, part, key) -> (loss, metrics)`, and the kind of each task.

    Tasks of one kind have the same head and the same loss.
    """
    losses = [loss] * len(net.heads) if callable(loss) else list(loss)
    if len(losses) != len(net.heads):
        raise InputError(
            f"{len(losses)} losses for {len(net.heads)} heads: give one for all or one per task"
        )

    def of_head(task: int) -> TaskFn:
        def value(own: Params, z: PyTree, part: Batch, key: Key | None) -> tuple[Scalar, Metrics]:
            prediction = net.heads[task].apply(own, z, key=key, weight=part.weight)
            return measured(losses[task], prediction, part.y, part.weight)

        return value

    return of_head, list(zip(net.heads, losses, strict=True))


def _parts(batch: Examples, tasks: int) -> tuple[Batch | None, list[Batch]]:
    """The inputs that all tasks share and their weights, or None; and one `Batch` per task."""
    if isinstance(batch, Batch):
        ys = _of_tasks(batch.y, tasks, "targets y")
        shared = batch.weight is None or getattr(batch.weight, "ndim", 0) == 1
        weights: list[PyTree] = (
            [batch.weight] * tasks if shared else _of_tasks(batch.weight, tasks, "weight")
        )
        most = batch.weight if shared else jnp.max(jnp.stack(weights), axis=0)
        parts = [Batch(None, y, w) for y, w in zip(ys, weights, strict=True)]
        return Batch(batch.x, None, most), parts
    if len(batch) != tasks or not all(isinstance(part, Batch) for part in batch):
        raise InputError(
            f"this batch does not fit a net of {tasks} tasks: give one Batch for all, or a tuple of"
            f" {tasks}, one per task"
        )
    return None, list(batch)


def _of_tasks(values: PyTree, tasks: int, name: str) -> list[PyTree]:
    """One part per task, from a tuple or from an array `[n, tasks, ...]`."""
    if isinstance(values, tuple) and len(values) == tasks:
        return list(values)
    if isinstance(values, tuple) or values.shape[1:2] != (tasks,):
        got = f"a tuple of {len(values)}" if isinstance(values, tuple) else values.shape
        raise InputError(
            f"{name} of {tasks} tasks are [n, {tasks}, ...] or a tuple of {tasks}, not {got}: give"
            " one part per task"
        )
    return [values[:, task] for task in range(tasks)]


def _gathered(found: list[tuple[Scalar, Metrics]]) -> tuple[PerTask, Metrics]:
    """The losses, and the metrics of all tasks by name."""
    losses, metrics = zip(*found, strict=True)
    return jnp.stack(losses), _named(metrics)


def _named(metrics: Sequence[Metrics]) -> Metrics:
    """The metrics of each task by its number, and the mean over tasks of each common metric."""
    common = [name for name in metrics[0] if all(name in of_task for of_task in metrics)]
    means = {name: jnp.mean(jnp.stack([m[name] for m in metrics])) for name in common}
    each = {f"{name}/{t}": value for t, m in enumerate(metrics) for name, value in m.items()}
    return {**means, **each}
