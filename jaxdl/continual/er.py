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
"""`(params, past, example) -> grads`: the gradient from weighted past examples and a new one."""


def er(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    *,
    capacity: int,
    replay_batch_size: int,
) -> Continual:
    """Learns from each example and `replay_batch_size` past ones in one batch, equally weighted.

    The past examples are drawn from a memory, which is a uniform sample of `capacity` of all
    examples so far. The task number is not used.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> from jaxdl.types import Example
    >>> line = jaxdl.Model(lambda key, x: jnp.zeros(()), lambda p, x, key=None, weight=None: p * x)
    >>> tx = optax.sgd(0.25)
    >>> learner = jaxdl.er(line, jaxdl.mean_squared_error, tx, capacity=100, replay_batch_size=4)
    >>> example = Example(x=jnp.ones(1), y=jnp.full(1, 8.0), task=jnp.int32(0))
    >>> state, step = learner.init(jax.random.key(0), example), jax.jit(learner.step)
    >>> for i in range(3):  # each step goes half the way to 8
    ...     state, metrics = step(jax.random.key(i), state, example)
    >>> state.params.item(), state.memory.size.item()
    (7.0, 3)
    >>> learner.predict(state, task=0, x=jnp.ones((2, 1))).tolist()
    [[7.0], [7.0]]

    Args:
        capacity: how many examples the memory holds, at least 1.
        replay_batch_size: how many past examples a step sees; fewer if fewer came.

    Raises:
        InputError: at `init`, if `capacity` is below 1.
    """
    grad_of = gradient(model, loss)

    def rule(params: Params, past: Batch, example: Example) -> Grads:
        return grad_of(params, beside(past, example))[0]

    return replaying(model, loss, tx, rule, capacity=capacity, replay_batch_size=replay_batch_size)


def replaying(
    model: Model,
    loss: LossFn,
    tx: optax.GradientTransformation,
    rule: Rule,
    *,
    capacity: int,
    replay_batch_size: int,
    batches: int = 1,
) -> Continual:
    """The learner that gives `rule` `batches * replay_batch_size` past examples of a reservoir.

    See `recall`.
    """
    replay, of_loss = reservoir(capacity=capacity), objective(model, loss)

    def grad(
        key: Key, params: Params, memory: Memory, example: Example
    ) -> tuple[Grads, Metrics, Memory]:
        past, memory = recall(replay, key, memory, example, replay_batch_size, batches)
        metrics = of_loss(params, None, alone(example))[1]
        return rule(params, past, example), metrics, memory

    return descending(model, tx, grad, lambda _, example: replay.init(stored(example)))


def beside(past: Batch, example: Example) -> Batch:
    """The weighted examples of `past`, and one more with weight 1."""
    now = alone(example)._replace(weight=jnp.ones(1))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), past, now)
