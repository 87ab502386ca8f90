"""PyTorch's SGD by its documented recurrence, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.optim.damped import damped_sgd


@pytest.mark.parametrize(
    ("momentum", "dampening", "weight_decay"), [(0.9, 0.9, 0.001), (0.5, 0.0, 0.1), (0.0, 0.3, 0)]
)
def test_is_the_recurrence_of_pytorch(momentum, dampening, weight_decay):
    grads = np.random.default_rng(0).normal(size=(6, 3))
    tx = damped_sgd(0.2, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    params = jnp.array([1.0, -2.0, 3.0])
    expected, velocity = np.asarray(params, float), None
    state = tx.init(params)
    for grad in grads:
        updates, state = tx.update(jnp.float32(grad), state, params)
        params = optax.apply_updates(params, updates)
        slope = grad + weight_decay * expected
        first = velocity is None or not momentum
        velocity = slope if first else momentum * velocity + (1 - dampening) * slope
        expected = expected - 0.2 * velocity
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_without_momentum_and_dampening_it_is_gradient_descent():
    params, grads = {"a": jnp.ones(2)}, {"a": jnp.array([1.0, 2.0])}
    tx, plain = damped_sgd(0.1, momentum=0.0), optax.sgd(0.1)
    updates, expected = (each.update(grads, each.init(params), params)[0] for each in (tx, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), updates, expected)


def test_without_momentum_nothing_is_damped():
    """As in PyTorch."""
    tx = damped_sgd(1.0, momentum=0.0, dampening=0.5)
    state = tx.init(jnp.float32(0))
    for _ in range(2):
        update, state = tx.update(jnp.float32(4), state)
        assert float(update) == -4
