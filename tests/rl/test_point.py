"""The point in the plane against its rules in NumPy, transition by transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.rl.point import Point, draw_goal, environment, informed, reset, step


def test_every_transition_is_that_of_the_rules():
    rng = np.random.default_rng(0)
    position, goal = np.float32(rng.uniform(-0.5, 0.5, (2, 400, 2)))
    action = np.float32(rng.normal(size=(400, 2)))
    goal[:100] = position[:100] + 0.1 * np.clip(action[:100], -1, 1)  # met, but for a little
    goal[:100] += np.float32(rng.uniform(-0.015, 0.015, (100, 2)))
    steps = np.zeros(400, np.int32)
    found = jax.vmap(step, (None, 0, 0))(None, Point(position, goal, steps), action)
    after = position.astype(np.float64) + np.clip(0.1 * action, -0.1, 0.1)
    np.testing.assert_allclose(found.obs, after, atol=1e-6)
    np.testing.assert_array_equal(found.obs, found.state.position)
    np.testing.assert_array_equal(found.state.goal, goal)
    away = after - goal
    np.testing.assert_allclose(found.reward, -np.sqrt((away**2).sum(1)), atol=1e-6)
    met = np.abs(away).max(1) < 0.01
    np.testing.assert_array_equal(found.terminated, met)
    assert 20 < met.sum() < 80
    assert not found.truncated.any()


@pytest.mark.parametrize(("steps", "truncated"), [(98, False), (99, True)])
def test_the_clock_truncates_and_the_goal_terminates(steps, truncated):
    goal = jnp.array([0.3, 0.3])
    far = step(None, Point(jnp.zeros(2), goal, jnp.int32(steps)), jnp.ones(2))
    assert (bool(far.terminated), bool(far.truncated)) == (False, truncated)
    there = step(None, Point(jnp.array([0.2, 0.2]), goal, jnp.int32(steps)), jnp.ones(2))
    assert (bool(there.terminated), bool(there.truncated)) == (True, False)


def test_goals_fill_the_square_and_episodes_start_at_the_origin():
    goals = jax.vmap(draw_goal)(jax.random.split(jax.random.key(0), 2000))
    assert goals.shape == (2000, 2)
    assert -0.5 <= goals.min() < -0.499
    assert 0.499 < goals.max() < 0.5
    # Staying there for 100 steps costs 100 mean distances: near the paper's -40 before adaptation.
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1).mean(), 0.3826, atol=0.01)
    state, obs = reset(None, goals[0])
    np.testing.assert_array_equal(obs, 0)
    np.testing.assert_array_equal(state.goal, goals[0])


def test_the_oracle_sees_the_goal_in_the_same_world():
    goal = jnp.array([0.3, -0.2])
    (blind_reset, blind_step), (seeing_reset, seeing_step) = environment(goal), informed(goal)
    (state, obs), (same, seen) = blind_reset(None), seeing_reset(None)
    np.testing.assert_array_equal(seen, [*obs, *goal])
    jax.tree.map(np.testing.assert_array_equal, state, same)
    action = jnp.array([0.5, 3.0])
    blind, seeing = blind_step(None, state, action), seeing_step(None, same, action)
    np.testing.assert_array_equal(seeing.obs, [*blind.obs, *goal])
    jax.tree.map(np.testing.assert_array_equal, blind._replace(obs=0), seeing._replace(obs=0))
