"""The common part of all methods that combine task gradients: each takes a weighted sum.

Projections, rotations and means of gradients stay in their span. So a method is a rule for `tasks`
weights. It computes them from the losses, from the `[tasks, tasks]` inner products of the
gradients, from a state, or from random numbers. Gradients are read twice: for the inner products
and for the sum. The computation between is tiny and does not depend on the net.

A method is an Optax transformation of updates stacked `[tasks, ...]`. It takes the extra arguments
`losses` `[tasks]` and `key`. Chain it before an optimiser:

    tx = optax.chain(pcgrad(), optax.adam(1e-3))

A method is not linear, so it comes *after* the average over devices and microbatches. Its type,
`TaskMethod`, says whether it needs gradients, because the training step depends on that.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import optax
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.optim.qp import gram, weighted_sum
from jaxdl.types import Array, Grads, Key, PyTree

State = TypeVar("State")

Gram = Float[Array, "tasks tasks"]
"""Inner products of the gradients of tasks."""
PerTask = Float[Array, " tasks"]

WeighLosses = Callable[[State, PerTask, Key | None], tuple[PerTask, State]]
"""`(state, losses, key) -> (weights, state)`."""

WeighGradients = Callable[[State, Gram, PerTask | None, Key | None], tuple[PerTask, State]]
"""`(state, gram, losses, key) -> (weights, state)`."""


class TaskMethod(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """A rule that combines task gradients: an Optax transformation with one more attribute.

    `weighs_losses`: the weights depend on losses, state and key, and never on gradients. Then the
    weighted sum of gradients is the gradient of the weighted loss, and `multitask_step` computes
    only this one. For other methods it computes one gradient per task.

    `weigh_losses` and `weigh_gradients` make a method from a rule for the weights.
    `TaskMethod(init, update)` makes one from any transformation of stacked gradients.
    """

    weighs_losses: bool = False


class LossWeighting(TaskMethod):
    """A `TaskMethod` that weighs losses."""

    weighs_losses = True


def weigh_losses(
    weigh: WeighLosses[State],
    init: Callable[[], State] = optax.EmptyState,
    *,
    tasks: int | None = None,
) -> LossWeighting:
    """The method whose weights are `weigh(state, losses, key)`. Its first state is `init()`.

    `tasks` is the number of tasks. Give it if the state depends on it.
    """

    def weights(
        state: State, _: Grads, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, State]:
        return weigh(state, needs_losses(losses, "this method"), key)

    return LossWeighting(lambda params: init(), _update_by(weights, tasks))


def weigh_gradients(
    weigh: WeighGradients[State],
    init: Callable[[], State] = optax.EmptyState,
    *,
    tasks: int | None = None,
) -> TaskMethod:
    """The method whose weights are `weigh(state, gram, losses, key)`. See `weigh_losses`."""

    def weights(
        state: State, stacked: Grads, losses: PerTask | None, key: Key | None
    ) -> tuple[PerTask, State]:
        return weigh(state, gram(stacked), losses, key)

    return TaskMethod(lambda params: init(), _update_by(weights, tasks))


def weigh_gram(weigh: Callable[[Gram], PerTask]) -> TaskMethod:
    """The method whose weights are a function of inner products alone."""
    return weigh_gradients(lambda state, gram, losses, key: (weigh(gram), state))


def needs_key(key: Key | None, method: str) -> Key:
    """The key of a method that draws random numbers.

    Raises:
        InputError: if it is None.
    """
    if key is None:
        raise InputError(f"{method} needs a key: give its update the extra argument key=")
    return key


def needs_losses(losses: PerTask | None, method: str) -> PerTask:
    """The losses `[tasks]` of a method that needs them.

    Raises:
        InputError: if they are None.
    """
    if losses is None:
        raise InputError(f"{method} needs losses: give its update the extra argument losses=")
    return losses


def _update_by(
    weigh: Callable[[State, Grads, PerTask | None, Key | None], tuple[PerTask, State]],
    tasks: int | None,
) -> optax.TransformUpdateExtraArgsFn:
    """The update of the method whose weights are `weigh(state, stacked, losses, key)`."""

    def update(
        updates: Grads,
        state: State,
        params: PyTree = None,
        *,
        losses: Array | None = None,
        key: Key | None = None,
        **_: object,
    ) -> tuple[Grads, State]:
        del params
        _check(updates, losses, tasks)
        weights, state = weigh(state, updates, losses, key)
        return weighted_sum(weights, updates), state

    return update


def _check(updates: Grads, losses: Array | None, tasks: int | None) -> None:
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(updates)}
    if len(counts) != 1 or (losses is not None and losses.shape != (*counts,)):
        shapes = [leaf.shape for leaf in jax.tree.leaves(updates)][:3]
        raise InputError(
            "gradients of tasks are stacked [tasks, ...] beside losses [tasks], not"
            f" {shapes} beside {None if losses is None else losses.shape}: stack them by task"
        )
    if tasks is not None and counts != {tasks}:
        raise InputError(
            f"a method made for tasks={tasks} got gradients of {counts.pop()}: make the method with"
            " the number of tasks of the net"
        )
