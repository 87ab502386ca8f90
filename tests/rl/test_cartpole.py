"""Cart and pole against the equations in float64 NumPy, transition by transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.rl.cartpole import CartPole, reset, step
from jaxdl.rl.environment import auto_reset


def by_the_equations(physics, action):
    """Equations (1) and (2) of the paper's appendix without friction, and one step of Euler's."""
    x, x_dot, theta, theta_dot = np.float64(physics)
    m, total, length, force = 0.1, 1.1, 0.5, 10.0 if action else -10.0
    inner = (-force - m * length * theta_dot**2 * np.sin(theta)) / total
    theta_acc = (9.8 * np.sin(theta) + np.cos(theta) * inner) / (
        length * (4 / 3 - m * np.cos(theta) ** 2 / total)
    )
    x_acc = (
        force + m * length * (theta_dot**2 * np.sin(theta) - theta_acc * np.cos(theta))
    ) / total
    return np.array(
        [
            x + 0.02 * x_dot,
            x_dot + 0.02 * x_acc,
            theta + 0.02 * theta_dot,
            theta_dot + 0.02 * theta_acc,
        ]
    )


def test_every_transition_is_that_of_the_equations():
    rng = np.random.default_rng(0)
    physics = np.float32(rng.uniform(-1, 1, (300, 4)) * [2.4, 3, 0.3, 3])
    actions = rng.integers(0, 2, 300)
    states = CartPole(jnp.asarray(physics), jnp.zeros(300, jnp.int32))
    found = jax.jit(jax.vmap(step, (None, 0, 0)))(None, states, jnp.asarray(actions))
    expected = np.stack([by_the_equations(p, a) for p, a in zip(physics, actions, strict=True)])
    np.testing.assert_allclose(found.obs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.obs, found.state.physics)
    fallen = (np.abs(expected[:, 0]) > 2.4) | (np.abs(np.rad2deg(expected[:, 2])) > 12)
    np.testing.assert_array_equal(found.terminated, fallen)
    assert 0 < fallen.sum() < 300
    np.testing.assert_array_equal(found.reward, 1)
    np.testing.assert_array_equal(found.state.steps, 1)


@pytest.mark.parametrize(
    ("physics", "over"),
    [
        ([2.39, 0, 0, 0], False),
        ([2.41, 0, 0, 0], True),
        ([-2.41, 0, 0, 0], True),
        ([0, 0, np.deg2rad(11.9), 0], False),
        ([0, 0, np.deg2rad(12.1), 0], True),
        ([0, 0, np.deg2rad(-12.1), 0], True),
    ],
)
def test_where_an_episode_fails(physics, over):
    outcome = step(None, CartPole(jnp.array(physics, jnp.float32), jnp.int32(0)), jnp.int32(0))
    assert bool(outcome.terminated) == over
    assert not outcome.truncated


@pytest.mark.parametrize(("steps", "truncated"), [(498, False), (499, True)])
def test_the_clock_truncates_and_the_fall_terminates(steps, truncated):
    up = step(None, CartPole(jnp.zeros(4), jnp.int32(steps)), jnp.int32(1))
    assert (bool(up.terminated), bool(up.truncated)) == (False, truncated)
    fallen = step(None, CartPole(jnp.array([3.0, 0, 0, 0]), jnp.int32(steps)), jnp.int32(1))
    assert (bool(fallen.terminated), bool(fallen.truncated)) == (True, False)


def test_an_episode_begins_near_the_middle():
    states, obs = jax.vmap(reset)(jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_array_equal(obs, states.physics)
    assert -0.05 <= obs.min() < -0.0499
    assert 0.0499 < obs.max() < 0.05
    assert not states.steps.any()


def test_episodes_follow_one_another_and_the_last_view_of_each_is_kept():
    going_on = auto_reset(reset, step)

    def body(carry, key):
        state, obs = carry
        action = jax.random.bernoulli(key).astype(jnp.int32)
        outcome, next_obs = going_on(key, state, action)
        return (outcome.state, outcome.obs), (obs, action, outcome, next_obs)

    @jax.jit
    def play(key):
        return lax.scan(body, reset(key), jax.random.split(jax.random.key(2), 300))[1]

    obs, actions, outcomes, next_obs = play(jax.random.key(1))
    expected = np.stack([by_the_equations(o, a) for o, a in zip(obs, actions, strict=True)])
    np.testing.assert_allclose(next_obs, expected, rtol=1e-5, atol=1e-6)
    ended = np.asarray(outcomes.terminated)
    assert 3 < ended.sum() < 60
    np.testing.assert_array_equal(outcomes.obs[:-1], obs[1:])
    np.testing.assert_array_equal(outcomes.obs[~ended], next_obs[~ended])
    assert (np.abs(outcomes.obs[ended]) <= 0.05).all()
    np.testing.assert_array_equal(outcomes.state.steps[ended], 0)
