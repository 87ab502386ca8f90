"""Experience replay with a reservoir, as in MER's appendix (https://arxiv.org/abs/1810.11910)."""

import jax
import jax.numpy as jnp
import optax

from jaxdl.continual.base import Continual, alone, descending, gradient, recall, stored
from jaxdl.grads import objective
from jaxdl.replay.uniform import Memory, reservoir
from jaxdl.types import Batch, Example, Grads, Key, LossFn, Metrics, Model, Params


def er(
    model: Model, loss: LossFn, tx: optax.GradientTransformation, *, capacity: int, replays: int
) -> Continual:
    """Each example beside `replays` old ones, in one batch of which each counts alike.

    The old ones are drawn from a uniform sample, of `capacity` examples, of all that ever came:
    the number of the task does not matter.
    """
    replay, of_loss = reservoir(capacity=capacity), objective(model, loss)
    grad_of = gradient(model, loss)

    def grad(
        key: Key, params: Params, memory: Memory, example: Example
    ) -> tuple[Grads, Metrics, Memory]:
        past, memory = recall(replay, key, memory, example, replays)
        grads, _ = grad_of(params, beside(past, example))
        return grads, of_loss(params, None, alone(example))[1], memory

    return descending(model, tx, grad, lambda params, example: replay.init(stored(example)))


def beside(past: Batch, example: Example) -> Batch:
    """The weighted examples of `past`, and one more, of weight 1."""
    now = alone(example)._replace(weight=jnp.ones(1))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), past, now)
