"""Gradient descent with momentum and dampening, by the rule of PyTorch's SGD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.types import Array, Params, PyTree


class DampedState(NamedTuple):
    """How many steps are done, and the velocity."""

    step: Array
    velocity: PyTree


def damped_sgd(
    lr: float | Array, *, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """PyTorch's `SGD(lr, momentum, dampening, weight_decay)`.

        g = gradient + weight_decay * params
        v = momentum * v + (1 - dampening) * g    (v = g in the first step, without dampening)
        params = params - lr * v

    As in PyTorch, dampening has no effect without momentum.

    >>> import jax.numpy as jnp
    >>> tx = damped_sgd(1.0, momentum=0.5, dampening=0.75)
    >>> state, params = tx.init(jnp.float32(0)), jnp.float32(0)
    >>> for _ in range(3):  # v is 4, then 2 + 1, then 1.5 + 1
    ...     update, state = tx.update(jnp.float32(4), state, params)
    ...     print(float(update))
    -4.0
    -3.0
    -2.5
    """

    def init(params: Params) -> DampedState:
        return DampedState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: PyTree, state: DampedState, params: Params | None = None
    ) -> tuple[PyTree, DampedState]:
        if weight_decay:
            grads = jax.tree.map(lambda g, p: g + weight_decay * p, grads, params)
        share = jnp.where((state.step == 0) | (momentum == 0), 1, 1 - dampening)
        velocity = jax.tree.map(lambda v, g: momentum * v + share * g, state.velocity, grads)
        updates = jax.tree.map(lambda v: -lr * v, velocity)
        return updates, DampedState(state.step + 1, velocity)

    return optax.GradientTransformation(init, update)
