"""Trajectories step by step: what an action saw, what it earned, and what comes after the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.rl.environment import Environment, Outcome
from jaxdl.rl.rollout import episode_returns, rollout

KEY = jax.random.key(0)


def reset(key):
    """A counter that starts at a whole number below three."""
    start = jax.random.randint(key, (), 0, 3).astype(jnp.float32)
    return start, start[None]


def step(key, state, action):
    """It adds the action, earns what it then is, fails above 5, and runs out of time at 4."""
    after = state + action[0]
    return Outcome(after, after[None], after, after > 5, after == 4)


def act(key, obs):
    return 1 + jax.random.randint(key, obs.shape, 0, 2).astype(jnp.float32)


def test_a_trajectory_is_a_chain_of_steps_and_ends_where_it_ends():
    @jax.jit
    def play(key):
        played = rollout(key, act, reset, step, trajectories=50, horizon=7)
        return played, played.total()

    played, totals = jax.tree.map(np.asarray, play(jax.random.key(0)))
    obs, action, reward, mask = played
    assert obs.shape == action.shape == (7, 50, 1)
    assert reward.shape == mask.shape == (7, 50)
    np.testing.assert_array_equal(obs[1:], obs[:-1] + action[:-1])
    assert set(obs[0].ravel()) == {0, 1, 2}
    assert set(action.ravel()) == {1, 2}
    for i in range(50):
        value, going, total = obs[0, i, 0], True, 0
        for t in range(7):
            value += action[t, i, 0]
            assert mask[t, i] == going
            assert reward[t, i] == (value if going else 0)
            total += reward[t, i]
            going = going and value != 4 and value <= 5
        assert totals[i] == total
    assert 0 < mask.mean() < 1
    other, _ = play(jax.random.key(1))
    assert (other.action != action).any()


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float32"])
def test_flags_of_any_type_end_an_episode_and_nothing_comes_after(dtype):
    """What an environment does past its end may be NaN."""

    def falls(key, state, action):
        after = state + 1
        reward = jnp.log(3.0 - after)  # 0.69, 0, and no number
        seen = jnp.where(after > 1, jnp.nan, after)[None]
        return Outcome(after, seen, reward, (after == 2).astype(dtype), jnp.zeros((), dtype))

    start = lambda key: (jnp.float32(0), jnp.zeros(1))  # noqa: E731
    played = rollout(KEY, lambda key, obs: obs, start, falls, trajectories=1, horizon=5)
    assert played.mask[:, 0].tolist() == [1, 1, 0, 0, 0]
    assert np.isfinite(played.obs).all()
    assert np.isfinite(played.action).all()
    np.testing.assert_allclose(played.reward[:, 0], [np.log(2), 0, 0, 0, 0], rtol=1e-6)
    env = Environment(start, falls, actions=1, limit=5)
    total = episode_returns(KEY, env, lambda obs: jnp.zeros(2, jnp.int32), episodes=2)
    np.testing.assert_allclose(total, np.log(2), rtol=1e-6)
