"""Returns, GAE and the linear baseline against loops and least squares in NumPy float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.rl.advantage import advantages, discounted, features, generalised, linear_baseline
from jaxdl.rl.rollout import Trajectories


def ended(rng, steps=12, n=5):
    """A mask of episodes that end anywhere, the first one never."""
    length = rng.integers(1, steps, n)
    length[0] = steps
    return (np.arange(steps)[:, None] < length).astype(np.float32), length


@pytest.mark.parametrize("gae_lambda", [1.0, 0.7, 0.0])
def test_gae_is_the_sum_of_discounted_errors(gae_lambda):
    rng = np.random.default_rng(0)
    mask, length = ended(rng)
    reward, value = np.float32(rng.normal(size=(2, 12, 5))) * mask
    found = generalised(
        jnp.asarray(reward), jnp.asarray(value), discount=0.9, gae_lambda=gae_lambda
    )
    for i in range(5):
        for t in range(length[i]):
            expected = 0.0
            for s in range(t, length[i]):
                after = value[s + 1, i] if s + 1 < length[i] else 0.0
                expected += (0.9 * gae_lambda) ** (s - t) * (
                    reward[s, i] + 0.9 * after - value[s, i]
                )
            np.testing.assert_allclose(found[t, i], expected, rtol=1e-4, atol=1e-5)


def test_gae_refuses_what_would_broadcast():
    with pytest.raises(InputError, match=r"rewards \[4, 2\] and values \[4, 2, 1\] differ"):
        generalised(jnp.zeros((4, 2)), jnp.zeros((4, 2, 1)), discount=0.9, gae_lambda=0.5)


def test_returns_are_discounted_from_each_step_on():
    reward = np.random.default_rng(1).normal(size=(6, 2))
    expected = [sum(0.9 ** (s - t) * reward[s] for s in range(t, 6)) for t in range(6)]
    np.testing.assert_allclose(discounted(jnp.float32(reward), 0.9), expected, rtol=1e-5)


def test_the_baseline_is_ridge_regression_over_what_counts():
    rng = np.random.default_rng(2)
    mask, _ = ended(rng, 100, 20)
    obs = np.float32(np.cumsum(rng.normal(size=(100, 20, 2)) / 10, axis=0))
    obs[50, 3] = 40  # clipped to 10
    target = np.float32(-10 * np.linalg.norm(obs - 0.3, axis=-1) + rng.normal(size=(100, 20)))
    seen = np.clip(obs.astype(np.float64), -10, 10)
    time = np.broadcast_to(np.arange(100)[:, None, None] / 100, (100, 20, 1))
    table = np.concatenate([seen, seen**2, time, time**2, time**3, np.ones_like(time)], axis=2)
    np.testing.assert_allclose(features(jnp.asarray(obs)), table, rtol=1e-5)
    counts = mask.astype(bool)
    tall = np.concatenate([table[counts], np.sqrt(1e-5) * np.eye(8)])
    right = np.concatenate([target[counts].astype(np.float64), np.zeros(8)])
    weights = np.linalg.lstsq(tall, right)[0]
    found = jax.jit(linear_baseline)(jnp.asarray(obs), jnp.asarray(target), jnp.asarray(mask))
    np.testing.assert_allclose(found, mask * (table @ weights), rtol=1e-3, atol=1e-3)


def test_a_baseline_of_one_step_is_finite():
    """Fewer rows than features, all the same: what every policy meets at the first step."""
    mask = jnp.zeros((4, 3)).at[0].set(1)
    value = jax.jit(linear_baseline)(jnp.zeros((4, 3, 2)), jnp.full((4, 3), 2.0), mask)
    np.testing.assert_allclose(value, 2 * mask, atol=1e-3)


def test_advantages_are_standardised_and_blind_to_what_is_after_the_end():
    rng = np.random.default_rng(3)
    mask, _ = ended(rng)
    obs = np.float32(rng.normal(size=(12, 5, 2)))
    action, reward = np.zeros((12, 5, 2), np.float32), np.float32(rng.normal(size=(12, 5))) * mask
    good = Trajectories(*map(jnp.asarray, (obs, action, reward, mask)))
    standardised = jax.jit(partial(advantages, discount=0.9, gae_lambda=0.9))
    found = standardised(good)
    counted = np.asarray(found)[mask == 1]
    np.testing.assert_allclose([counted.mean(), counted.std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(found, found * mask)
    dirty = good._replace(obs=jnp.where(mask[..., None] == 1, obs, 7.0))
    same = standardised(dirty)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, same)


def test_returns_of_whole_numbers_and_of_no_steps():
    found = discounted(jnp.array([[1], [2], [4]]), 0.5)
    assert found.ravel().tolist() == [3.0, 4.0, 4.0]
    assert discounted(jnp.zeros((0, 2)), 0.5).shape == (0, 2)


def test_what_is_after_the_end_does_not_reach_the_baseline():
    obs = jax.random.normal(jax.random.key(0), (4, 3, 2))
    mask = jnp.ones((4, 3)).at[2:, 0].set(0)
    target = jnp.where(mask > 0, obs[..., 0], 0)
    expected = linear_baseline(obs, target, mask)
    found = linear_baseline(jnp.where(mask[..., None] > 0, obs, jnp.nan), target, mask)
    np.testing.assert_array_equal(found, expected)
