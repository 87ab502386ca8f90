"""Experience replay with a reservoir, as in MER's appendix (https://arxiv.org/abs/1810.11910)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.continual.base import Continual, alone, descending, gradient, recall, stored
from jaxdl.grads import objective
from jaxdl.replay.uniform import Memory, reservoir
from jaxdl.types import Batch, Example, Grads, Key, LossFn, Metrics, Model, Params

Rule = Callable[[Params, Batch, Example], Grads]
"""`(params, past, example) -> grads`: what is learnt from old examples, weighted, and a new one."""


def er(
    model: Model, loss: LossFn, tx: optax.GradientTransformation, *, capacity: int, replays: int
) -> Continual:
    """Each example beside `replays` old ones, in one batch of which each counts alike.

    The old ones are drawn from a uniform sample, of `capacity` examples, of all that ever came:
    the number of the task does not matter.
    """
    grad_of = gradient(model, loss)

    def rule(params: Params, past: Batch, example: Example) -> Grads:
        return grad_of(params, beside(past, example))[0]

    return replaying(model, loss, tx, rule, capacity=capacity, replays=replays)


def replaying(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    rule: Rule,
    *,
    capacity: int,
    replays: int,
    batches: int = 1,
) -> Continual:
    """The learner that gives its rule `batches * replays` examples of a reservoir; see `recall`."""
    replay, of_loss = reservoir(capacity=capacity), objective(model, loss)

    def grad(
        key: Key, params: Params, memory: Memory, example: Example
    ) -> tuple[Grads, Metrics, Memory]:
        past, memory = recall(replay, key, memory, example, replays, batches)
        metrics = of_loss(params, None, alone(example))[1]
        return rule(params, past, example), metrics, memory

    return descending(model, tx, grad, lambda _, example: replay.init(stored(example)))


def beside(past: Batch, example: Example) -> Batch:
    """The weighted examples of `past`, and one more, of weight 1."""
    now = alone(example)._replace(weight=jnp.ones(1))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), past, now)
