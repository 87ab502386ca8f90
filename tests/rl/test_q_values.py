"""What values are used for, against NumPy and by counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.mlp import mlp
from jaxdl.replay.nstep import Transition
from jaxdl.rl.q_values import epsilon_greedy, of_actions, td_errors, td_targets


def test_targets_are_those_of_the_papers():
    rng = np.random.default_rng(0)
    n, actions = 7, 3
    after, chooser = rng.normal(size=(2, n, actions)).astype(np.float32)
    reward, discount = rng.normal(size=n), rng.choice([0, 0.9, 0.81], n)
    made = Transition(None, None, *map(jnp.float32, (reward, discount)), None)
    plain = [r + d * max(row) for r, d, row in zip(reward, discount, after, strict=True)]
    np.testing.assert_allclose(td_targets(made, jnp.asarray(after)), plain, rtol=1e-6)
    double = [
        r + d * row[int(np.argmax(choice))]
        for r, d, row, choice in zip(reward, discount, after, chooser, strict=True)
    ]
    found = td_targets(made, jnp.asarray(after), jnp.asarray(chooser))
    np.testing.assert_allclose(found, double, rtol=1e-6)
    assert not np.allclose(plain, double)
    chosen = rng.integers(0, actions, n)
    np.testing.assert_array_equal(
        of_actions(jnp.asarray(after), jnp.asarray(chosen)), after[np.arange(n), chosen]
    )


@pytest.mark.parametrize(
    ("reward", "discount", "after"),
    [((7, 1), (7,), (7, 3)), ((7,), (7, 1), (7, 3)), ((7,), (), (7, 3)), ((7,), (7,), (1, 3))],
)
def test_targets_that_would_broadcast_are_refused(reward, discount, after):
    made = Transition(None, None, jnp.zeros(reward), jnp.zeros(discount), None)
    with pytest.raises(InputError, match=r"are not \[n\], \[n\] and \[n, actions\]"):
        td_targets(made, jnp.zeros(after))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_so_many_actions_are_random(epsilon):
    n = 20_000
    values = jnp.tile(jnp.array([0.0, 2.0, 1.0, -1.0]), (n, 1))
    actions = np.asarray(epsilon_greedy(jax.random.key(3), values, epsilon))
    shares = np.bincount(actions, minlength=4) / n
    expected = np.full(4, epsilon / 4) + (1 - epsilon) * np.eye(4)[1]
    np.testing.assert_allclose(shares, expected, atol=0.012)


@pytest.mark.parametrize("double", [False, True])
def test_errors_are_targets_minus_estimates_and_targets_carry_no_gradient(double):
    net, rng = mlp((3,)), np.random.default_rng(1)
    obs, next_obs = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    reward, discount = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    made = Transition(obs, jnp.array([0, 2, 1, 1, 0]), reward, discount, next_obs)
    params, target = (net.init(jax.random.key(i), obs) for i in range(2))
    errors = td_errors(net, double=double)

    here, there = np.asarray(net.apply(params, next_obs)), np.asarray(net.apply(target, next_obs))
    best = (here if double else there).argmax(axis=1)
    wanted = reward + discount * there[np.arange(5), best]
    said = net.apply(params, obs)[np.arange(5), made.action]
    np.testing.assert_allclose(errors(params, target, made), wanted - said, rtol=1e-5, atol=1e-6)
    assert np.any(here.argmax(axis=1) != there.argmax(axis=1))

    def of_errors(params):
        return jnp.sum(errors(params, target, made))

    def of_estimates(params):
        return -jnp.sum(of_actions(net.apply(params, obs), made.action))

    grads, expected = jax.grad(of_errors)(params), jax.grad(of_estimates)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), grads, expected)
