"""CartPole transition by transition against gymnax, and its environments through the adapter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.models.mlp import mlp
from jaxdl.replay.uniform import ring
from jaxdl.rl import cartpole
from jaxdl.rl.cartpole import cart_pole
from jaxdl.rl.dqn import dqn
from jaxdl.rl.gymnax import gymnax
from jaxdl.rl.rollout import episode_returns

package = pytest.importorskip("gymnax")

STATES, EPISODES = 20_000, 300


def as_ours(theirs):
    physics = jnp.stack([theirs.x, theirs.x_dot, theirs.theta, theirs.theta_dot], axis=-1)
    return cartpole.CartPole(physics, jnp.asarray(theirs.time, jnp.int32))


def as_theirs(ours):
    env, params = package.make("CartPole-v1")
    _, like = env.reset_env(jax.random.key(0), params)
    x, x_dot, theta, theta_dot = jnp.moveaxis(ours.physics, -1, 0)
    return like.replace(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot, time=ours.steps)


def both(ours, action):
    """What one action leads to in both, with gymnax's own clock."""
    env, params = package.make("CartPole-v1")
    obs, state, reward, fell, _ = env.step_env(jax.random.key(0), as_theirs(ours), action, params)
    late = env.is_truncated(state, params)
    return cartpole.step(None, ours, action), (obs, as_ours(state), reward, fell, late)


def assert_same(ours, theirs):
    obs, state, reward, fell, late = theirs
    np.testing.assert_allclose(ours.obs, obs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.state.physics, state.physics, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ours.state.steps, state.steps)
    np.testing.assert_array_equal(ours.reward, reward)
    np.testing.assert_array_equal(ours.terminated, fell)
    np.testing.assert_array_equal(ours.terminated | ours.truncated, fell | late)


def test_every_transition_of_cart_and_pole_is_gymnax_s():
    """Random states that an episode can be in, up to the edges, and both pushes."""
    rng = np.random.default_rng(0)
    edges = [cartpole.TRACK, 4, cartpole.LEAN, 4]
    physics = jnp.asarray(rng.uniform(-1, 1, (STATES, 4)) * edges, jnp.float32)
    steps = jnp.asarray(rng.integers(0, cartpole.LIMIT, STATES), jnp.int32)
    actions = jnp.asarray(rng.integers(0, 2, STATES), jnp.int32)
    ours, theirs = jax.jit(jax.vmap(both))(cartpole.CartPole(physics, steps), actions)
    assert_same(ours, theirs)
    assert 100 < ours.terminated.sum() < STATES / 2
    assert ours.truncated.sum() > 10


@pytest.mark.parametrize("skill", [0.0, 0.9])
def test_whole_episodes_of_cart_and_pole_are_gymnax_s(skill):
    """Both go on from their own states, for as long as episodes last, with the same actions."""
    env, params = package.make("CartPole-v1")
    states, _ = jax.vmap(cartpole.reset)(jax.random.split(jax.random.key(1), EPISODES))

    def once(carry, key):
        ours, theirs, alive = carry
        physics = ours.physics
        good = physics[:, 2] + 0.5 * physics[:, 3] > 0
        coin, chance = jax.random.uniform(key, (2, EPISODES))
        actions = jnp.where(chance < skill, good, coin < 0.5).astype(jnp.int32)
        mine = jax.vmap(cartpole.step, (None, 0, 0))(None, ours, actions)
        obs, theirs, reward, fell, _ = jax.vmap(env.step_env, (None, 0, 0, None))(
            key, theirs, actions, params
        )
        late = jax.vmap(env.is_truncated, (0, None))(theirs, params)
        gap = jnp.where(alive, jnp.abs(mine.obs - obs).max(axis=1), 0).max()
        ends = mine.terminated | mine.truncated
        same = (ends == (fell | late)) & (mine.terminated == fell) & (mine.reward == reward)
        row = gap, jnp.where(alive, same, True).all(), (alive & ends).sum()
        return (mine.state, theirs, alive & ~ends), row

    start = states, jax.vmap(as_theirs)(states), jnp.ones(EPISODES, bool)
    keys = jax.random.split(jax.random.key(2), cartpole.LIMIT)
    (_, _, alive), (gaps, same, ends) = jax.jit(lambda start: lax.scan(once, start, keys))(start)
    assert gaps.max() < 1e-4
    assert same.all()
    assert not alive.any()
    assert ends.sum() == EPISODES
    assert (ends[-1] > 0) == (skill > 0)  # the clock ended some where the play was good


def test_starts_of_cart_and_pole_have_gymnax_s_distribution():
    env, params = package.make("CartPole-v1")
    keys = jax.random.split(jax.random.key(3), 2000)
    theirs = jax.vmap(lambda key: env.reset_env(key, params)[0])(keys)
    ours = jax.vmap(lambda key: cartpole.reset(key)[1])(keys)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # the same draw, even


def test_the_adapter_gives_our_cart_and_pole():
    def balance(obs):
        return (obs[:, 2] + 0.5 * obs[:, 3] > 0).astype(jnp.int32)

    def push_left(obs):
        return jnp.zeros(len(obs), jnp.int32)

    adapted, own = gymnax("CartPole-v1"), cart_pole()
    assert (adapted.actions, adapted.limit) == (own.actions, own.limit)
    key = jax.random.key(4)
    for act, varies in ((balance, False), (push_left, True)):
        found, expected = (episode_returns(key, e, act, episodes=50) for e in (adapted, own))
        np.testing.assert_array_equal(found, expected)
        assert (np.ptp(found) > 0) == varies


@pytest.mark.parametrize("name", ["Acrobot-v1", "Catch-bsuite", "Breakout-MinAtar"])
def test_an_agent_learns_in_other_environments(name):
    env = gymnax(name)
    agent = dqn(
        env,
        mlp((8, env.actions)),
        optax.adam(1e-3),
        ring(capacity=200),
        epsilon=optax.constant_schedule(0.5),
        envs=2,
        learning_starts=20,
    )
    state, step = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.step)
    for i in range(3):
        state, metrics = step(jax.random.key(i), state, ())
    assert np.isfinite(metrics["loss"])
    assert state.memory.size == 20 + 3 * 2 * 4


def test_what_has_no_list_of_actions_is_refused():
    with pytest.raises(InputError, match="Pendulum-v1 has actions that are not discrete"):
        gymnax("Pendulum-v1")
    with pytest.raises(InputError, match="no environment 'Nowhere'; choose among"):
        gymnax("Nowhere")
