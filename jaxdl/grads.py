"""Makers and wrappers of `GradFn`, the seam of the library.

`supervised` and `of_loss` make a `GradFn`. `over_tasks`, `over_microbatches` and `over_devices`
wrap one and return another.

Under pmap, the outermost wrapper takes the name of the device axis. It averages over that axis, and
gives each device random numbers of its own. If devices share the tasks of a step, this wrapper is
`over_tasks(learner.grad, axis_name=...)`. If they share the examples of a batch, it is
`over_devices(supervised(model, loss), axis_name)`.

>>> import jaxdl, jax, jax.numpy as jnp
>>> def loss(w, key, target, step=None):
...     return (w - target) ** 2, {}
>>> grad = jaxdl.over_tasks(jaxdl.of_loss(loss), axis_name="devices")
>>> targets = jnp.array([[1.0, 2.0], [3.0, 6.0]])  # [devices, tasks of a device]
>>> grad = jax.jit(jax.vmap(grad, (None, None, None, 0), axis_name="devices"))  # as in pmap
>>> grads, _ = grad(jax.random.key(0), jnp.int32(0), jnp.float32(0), targets)
>>> grads.tolist()  # 2 * (0 - 3) on both
[-6.0, -6.0]
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError
from jaxdl.losses import measured, with_loss, without_void
from jaxdl.parallel import (
    device_key,
    device_share,
    differing_as,
    mean_over_devices,
    on_each_device,
    task_keys,
    times,
    total_weight,
)
from jaxdl.types import (
    Count,
    GradFn,
    Grads,
    Key,
    LossFn,
    Metrics,
    Model,
    Params,
    PyTree,
    Scalar,
)


class Objective(Protocol):
    """`(params, key, batch, step) -> (scalar, metrics)`: `jax.grad` differentiates the scalar.

    Some objectives accept None as key, and then use no dropout. `step` is the outer step, an
    unbatched int32, for annealed losses. It is None where no steps are counted.
    """

    def __call__(
        self, params: Params, key: Any, batch: PyTree, step: Count | None = None, /
    ) -> tuple[Scalar, Metrics]: ...


def objective(model: Model, loss: LossFn) -> Objective:
    """The loss of a model on a `Batch` as a function of its parameters.

    An example of weight 0 counts neither in the loss nor in statistics of the batch, even if its
    input is NaN. The value does not depend on the step.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model = jaxdl.mlp([1])
    >>> batch = jaxdl.Batch(x=jnp.zeros((2, 3)), y=jnp.array([[1.0], [3.0]]))
    >>> params = jax.jit(model.init)(jax.random.key(0), batch.x)
    >>> value = jax.jit(jaxdl.objective(model, jaxdl.mean_squared_error))
    >>> loss, metrics = value(params, None, batch)
    >>> float(loss)  # inputs of 0 and no bias yet: (1 + 9) / 2
    5.0

    Raises:
        InputError: if `model` is no `Model`.
    """
    check_model(model)

    def value(
        params: Params, key: Key | None, batch: PyTree, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        del step  # a plain loss does not change with training time
        x, y, weight = without_void(batch.x, batch.weight), batch.y, batch.weight
        return measured(loss, model.apply(params, x, key=key, weight=weight), y, weight)

    return value


def check_model(model: Any) -> None:
    """Validates that a learner can apply `model`. A Flax module, for example, is no `Model`.

    Raises:
        InputError: if not. The message says how to make a `Model`.
    """
    names, any_name = _arguments(getattr(model, "apply", None))
    if "mode" in names:
        raise InputError(
            "this is a StatefulModel, which keeps running averages: train it by"
            " jaxdl.supervised_step. In a learner, make a Model of a net with jaxdl.BatchNorm"
        )
    if any_name and isinstance(model, Model):
        return
    if isinstance(model, type) or "key" not in names:
        if isinstance(model, Model):
            raise InputError(
                "the apply of this Model takes no key: write apply(params, x, *, key=None,"
                " weight=None); a net without dropout ignores the key"
            )
        name = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InputError(
            f"{name} is no Model: make one of a Flax module by jaxdl.pure(module) or"
            " jaxdl.pure_nnx(make), or write Model(init, apply) with apply(params, x, *, key=None,"
            " weight=None)"
        )
    if "weight" not in names:
        raise InputError(
            "the apply of this Model takes no weights: write apply(params, x, *, key=None,"
            " weight=None); a net without statistics of the batch ignores them"
        )


def _arguments(function: Any) -> tuple[frozenset[str], bool]:
    """The names of a function's arguments, and whether it takes any other by name."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # no function, or one in C
        return frozenset(), False
    return frozenset(found), any(p.kind is p.VAR_KEYWORD for p in found.values())


def supervised(model: Model, loss: LossFn) -> GradFn:
    """The gradient of `loss` on one `Batch`. Under pmap, wrap it in `over_devices`.

    The model uses the key for dropout. Metrics are those of `loss`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model = jaxdl.mlp([1])
    >>> batch = jaxdl.Batch(x=jnp.zeros((2, 3)), y=jnp.array([[1.0], [3.0]]))
    >>> params = jax.jit(model.init)(jax.random.key(0), batch.x)
    >>> grad = jax.jit(jaxdl.supervised(model, jaxdl.mean_squared_error))
    >>> grads, metrics = grad(jax.random.key(1), jnp.int32(0), params, batch)
    >>> grads["Dense_0"]["bias"].tolist(), float(metrics["loss"])  # 2 * (0 - 1 + 0 - 3) / 2
    ([-4.0], 5.0)

    Raises:
        InputError: if `model` is no `Model`.
    """
    return of_loss(objective(model, loss))


def of_loss(loss: Objective) -> GradFn:
    """The gradient of an objective. The objective gets the outer step, so that it can be annealed.

    Metrics are those of the objective. The batch may be anything that the objective takes.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def annealed(params, key, batch, step=None):
    ...     value = jnp.sum((params - batch) ** 2) * 0.5**step
    ...     return value, {"loss": value}
    >>> grad = jax.jit(jaxdl.of_loss(annealed))
    >>> params, batch = jnp.zeros(2), jnp.array([1.0, 3.0])
    >>> grads, metrics = grad(jax.random.key(0), jnp.int32(1), params, batch)
    >>> grads.tolist(), float(metrics["loss"])  # at step 0 they are ([-2.0, -6.0], 10.0)
    ([-1.0, -3.0], 5.0)
    """

    def told(params: Params, key: Key, batch: PyTree, step: Count) -> tuple[Scalar, Metrics]:
        return with_loss(loss(params, key, batch, step))

    def grad(key: Key, step: Count, params: Params, batch: PyTree) -> tuple[Grads, Metrics]:
        if isinstance(params, _Later):
            return params, params.take(told(params.params, key, batch, step))
        return jax.grad(told, has_aux=True)(params, key, batch, step)

    return grad


def over_tasks(grad: GradFn, *, chunk: int | None = None, axis_name: str | None = None) -> GradFn:
    """The mean of `grad` over tasks stacked along the leading axis of the batch.

    `chunk` tasks are vmapped at a time, and a scan adds up the chunks. None vmaps all tasks at
    once, which is right for tiny nets and for accelerators. On a CPU, choose 1 or 2 for a conv net,
    so that the activations of one task stay in the cache.

    Under pmap, `axis_name` names the device axis. The mean is then over the tasks of all devices.
    Each task gets the key of its *global* index. So the result on n devices is that of one device,
    up to rounding. Do not wrap `over_devices` around it.

    The gradient of a loss (`of_loss`) is taken once, of the mean over the chunk. No task then has a
    gradient of its own. This saves most of the time if tasks share their weights (ProtoNet, hard
    sharing: 16 times less on a wide MLP), and a product or two if they do not (MAML). A function
    around `of_loss` may change key, batch and metrics. If it uses the gradient of each task, to
    clip it for example, it gets these gradients, at their full cost. Clip the mean instead if that
    is enough: `lambda *args: clip(*over_tasks(grad)(*args))`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def loss(w, key, target, step=None):
    ...     return (w - target) ** 2, {"loss": (w - target) ** 2}
    >>> grad = jax.jit(jaxdl.over_tasks(jaxdl.of_loss(loss), chunk=2))
    >>> targets = jnp.array([1.0, 2.0, 3.0, 6.0])  # of four tasks
    >>> grads, metrics = grad(jax.random.key(0), jnp.int32(0), jnp.float32(0), targets)
    >>> float(grads), float(metrics["loss"])  # 2 * (0 - 3), and (1 + 4 + 9 + 36) / 4
    (-6.0, 12.5)

    Raises:
        InputError: when tracing, if `chunk` does not divide the number of tasks on a device.
    """

    def mean_grad(key: Key, step: Count, params: Params, batch: PyTree) -> tuple[Grads, Metrics]:
        tasks = leading_axis(batch)
        size = tasks if chunk is None else min(chunk, tasks)
        if tasks % size:
            raise InputError(f"chunk={size} does not divide {tasks} tasks; choose a divisor")

        def of_chunk(part: PyTree) -> tuple[Grads, Metrics]:
            if size == 1:  # no vmap, because even an axis of length 1 makes convolutions slower
                task_key, task = jax.tree.map(lambda leaf: leaf[0], part)
                return grad(task_key, step, params, task)
            try:
                return _gradient_of_mean(grad, step, params, part)
            except _GradientsNeeded:
                return _mean(jax.vmap(grad, (0, None, None, 0))(part[0], step, params, part[1]))

        keyed, params = (task_keys(key, tasks, axis_name), batch), on_each_device(params, axis_name)
        mean = _mean_over_groups(of_chunk, _grouped(keyed, tasks // size))
        return mean_over_devices(mean, axis_name)

    return mean_grad if axis_name is None else _Averaged(mean_grad)


class _Later:
    """Stands for parameters whose gradient is taken later. `of_loss` stores its loss here.

    Functions between `over_tasks` and `of_loss` pass it on instead of parameters, and return it
    instead of a gradient. Any other use of it fails, because it is no array. `_gradient_of_mean`
    catches that failure.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.losses: list[Scalar] = []

    def take(self, found: tuple[Scalar, Metrics]) -> Metrics:
        self.losses.append(found[0])
        return found[1]


class _GradientsNeeded(Exception):
    pass


def _gradient_of_mean(
    grad: GradFn, step: Count, params: Params, part: PyTree
) -> tuple[Grads, Metrics]:
    """The gradient of the mean loss of tasks. `part` has keys and batches `[tasks, ...]`.

    Raises:
        _GradientsNeeded: if `grad` uses the gradients of single tasks.
    """

    def mean_loss(params: Params) -> tuple[Scalar, Metrics]:
        def of_task(key: Key, task: PyTree) -> tuple[Scalar, Metrics]:
            later = _Later(params)
            try:
                found, metrics = grad(key, step, later, task)
            except Exception as error:  # if it is an error of the caller, the vmap raises it again
                raise _GradientsNeeded from error
            if found is not later or len(later.losses) != 1:
                raise _GradientsNeeded
            return later.losses[0], metrics

        losses, metrics = jax.vmap(of_task)(*part)
        return jnp.mean(losses), _mean(metrics)

    return jax.grad(mean_loss, has_aux=True)(params)


def over_microbatches(grad: GradFn, *, count: int) -> GradFn:
    """The mean of `grad` over `count` equal slices of the batch, taken one after another.

    It equals the gradient of the whole batch if that is a mean over examples. It needs `1 / count`
    of the memory. A slice counts by the sum of the weights of its examples. Each slice has a key of
    its own.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def loss(w, key, batch, step=None):
    ...     return jaxdl.mean_squared_error(w * batch.x, batch.y, batch.weight)
    >>> grad = jax.jit(jaxdl.over_microbatches(jaxdl.of_loss(loss), count=2))
    >>> y, weight = jnp.array([1.0, 2.0, 6.0, 9.0]), jnp.array([1, 1, 1, 0])  # 9 is padding
    >>> batch = jaxdl.Batch(jnp.ones(4), y, weight)
    >>> grads, _ = grad(jax.random.key(0), jnp.int32(0), jnp.float32(0), batch)
    >>> float(grads)  # 2 * (0 - 3): the second slice counts once, the first one twice
    -6.0

    Raises:
        InputError: when tracing, if `count` does not divide the batch, or if `grad` averages over
            devices and the examples have weights.
    """

    def mean_grad(key: Key, step: Count, params: Params, batch: PyTree) -> tuple[Grads, Metrics]:
        examples = leading_axis(batch)
        if examples % count:
            raise InputError(
                f"a batch of {examples} does not split into {count} microbatches; choose a divisor"
            )

        def of_slice(part: PyTree) -> tuple[Any, Scalar | None]:
            slice_key, examples = part
            total = total_weight(examples)
            if total is not None and isinstance(grad, _Averaged):
                raise InputError(
                    "slices with weights do not count equally on all devices: write"
                    " over_devices(over_microbatches(...), axis_name), and not the other way round"
                )
            return times(grad(slice_key, step, params, examples), total), total

        groups = jax.random.split(key, count), _grouped(batch, count)
        mean, total = _mean_over_groups(of_slice, groups)
        # A total of 0 means a batch of padding. Its gradient is 0, and 0 / 1 keeps it so.
        return mean if total is None else times(mean, 1 / jnp.where(total > 0, total, 1))

    return mean_grad


def over_devices(grad: GradFn, axis_name: str | None) -> GradFn:
    """The mean of `grad` over the devices of a pmap axis. Without an axis, `grad` itself.

    Each device gets a key of its own, and so draws dropout masks of its own. Use `over_tasks` for
    tasks whose random numbers must not depend on the number of devices. A device counts by the sum
    of the weights of its examples, so padding may be on one device alone.

    It averages gradients and not losses: under pmap, grad-then-pmean is the gradient of the mean.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def loss(w, key, batch, step=None):
    ...     return jaxdl.mean_squared_error(w * batch.x, batch.y, batch.weight)
    >>> grad = jaxdl.over_devices(jaxdl.of_loss(loss), "devices")
    >>> grad = jax.jit(jax.vmap(grad, (None, None, None, 0), axis_name="devices"))  # as in pmap
    >>> y, weight = jnp.array([[1.0, 2.0], [6.0, 9.0]]), jnp.array([[1, 1], [1, 0]])
    >>> batch = jaxdl.Batch(jnp.ones((2, 2)), y, weight)  # [devices, examples]
    >>> grads, _ = grad(jax.random.key(0), jnp.int32(0), jnp.float32(0), batch)
    >>> grads.tolist()  # 2 * (0 - 3) on both: the second device counts for one example
    [-6.0, -6.0]

    Raises:
        InputError: if `grad` averages over devices already.
    """
    if isinstance(grad, _Averaged):
        raise InputError(
            "this gradient is averaged over devices already: leave out over_devices around it"
            " (over_tasks with an axis_name averages, too)"
        )
    if axis_name is None:
        return grad

    def mean_grad(key: Key, step: Count, params: Params, batch: PyTree) -> tuple[Grads, Metrics]:
        own = on_each_device(params, axis_name)
        found = grad(device_key(key, axis_name), step, own, batch)
        return mean_over_devices(times(found, device_share(batch, axis_name)), axis_name)

    return _Averaged(mean_grad)


@dataclasses.dataclass(frozen=True)
class _Averaged:
    """A `GradFn` that averages over devices. Its type tells other wrappers not to do so again."""

    grad: GradFn

    def __call__(
        self, key: Key, step: Count, params: Params, batch: PyTree
    ) -> tuple[Grads, Metrics]:
        return self.grad(key, step, params, batch)


def leading_axis(batch: PyTree) -> int:
    """The length of the leading axis that all leaves of `batch` share."""
    return int(jax.tree.leaves(batch)[0].shape[0])


def _mean(stacked: PyTree) -> Any:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stacked)


def _grouped(items: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), items)


def _as_float(leaf: Any) -> Any:
    """A sum of bools is a bool, and one of bytes wraps."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(jnp.float32)


def _mean_over_groups(of_group: Callable[[Any], Any], groups: PyTree) -> Any:
    """The mean of `of_group` over the leading axis of `groups`, summed up by a scan."""
    count = leading_axis(groups)
    first = jax.tree.map(lambda leaf: leaf[0], groups)

    def found(group: PyTree) -> Any:
        return jax.tree.map(_as_float, of_group(group))

    if count == 1:
        return found(first)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(found, first)
    )
    zeros = differing_as(zeros, groups)

    def add(sums: PyTree, group: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, sums, found(group)), None

    sums, _ = lax.scan(add, zeros, groups)
    return jax.tree.map(lambda leaf: leaf / count, sums)
