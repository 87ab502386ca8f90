"""DQN against NumPy, against optimal values known in closed form, and in all its options."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax import lax
from jax.tree_util import Partial

from jaxdl.errors import InputError
from jaxdl.models.mlp import mlp
from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import ring
from jaxdl.rl.cartpole import cart_pole
from jaxdl.rl.dqn import dqn
from jaxdl.rl.environment import Environment, Outcome
from jaxdl.rl.rollout import episode_returns
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.train.loop import loop, per_seed
from jaxdl.train.streams import run_keys
from jaxdl.types import Model
from tests.programs import traced_once
from tests.runs.test_checkpoint import same_bits

pytestmark = pytest.mark.usefixtures("compiled_once")

NOTHING = Partial(lambda key, step, shard: ())
GAMMA = 0.9


def test_a_flax_module_is_refused_with_the_word_pure():
    with pytest.raises(InputError, match=r"Dense is no Model: .*pure"):
        dqn(cart_pole(), nn.Dense(2), optax.sgd(0.1), ring(capacity=4), epsilon=lambda step: 0.1)


# ---- a world whose optimal values are known


class Corridor(NamedTuple):
    place: jax.Array
    steps: jax.Array


PLACES, LIMIT = 5, 8
CLIFF, STEP, GOAL = -1.0, 0.05, 1.0


def seen(place):
    return jax.nn.one_hot(place, PLACES)


def corridor_reset(key):
    place = jax.random.randint(key, (), 0, PLACES)
    return Corridor(place, jnp.int32(0)), seen(place)


def corridor_step(key, state, action):
    """Left and right along a corridor: a cliff on its left, a goal on its right, and a clock."""
    del key
    to = state.place + jnp.where(action == 1, 1, -1)
    reward = jnp.where(to == PLACES, GOAL, jnp.where(to < 0, CLIFF, STEP))
    terminated = (to < 0) | (to == PLACES)
    after = Corridor(jnp.clip(to, 0, PLACES - 1), state.steps + 1)
    truncated = (after.steps >= LIMIT) & ~terminated
    return Outcome(after, seen(after.place), jnp.float32(reward), terminated, truncated)


CORRIDOR = Environment(corridor_reset, corridor_step, 2, LIMIT)


def optimal_values(gamma=GAMMA):
    """Q* by value iteration in float64; the clock ends an episode but not what would come."""
    q = np.zeros((PLACES, 2))
    for _ in range(500):
        best = q.max(axis=1)
        left = np.r_[CLIFF, STEP + gamma * best[:-1]]
        right = np.r_[STEP + gamma * best[1:], GOAL]
        q = np.stack([left, right], axis=1)
    return q


def table(dueling=False):
    """A value for each place and action; if dueling, those of places apart."""

    def apply(params, obs, *, key=None, weight=None):
        del key
        value, advantage = (obs @ params[name] for name in ("value", "advantage"))
        return advantage + dueling * (value - advantage.mean(axis=1, keepdims=True))

    zeros = {"value": jnp.zeros((PLACES, 1)), "advantage": jnp.zeros((PLACES, 2))}
    return Model(lambda key, obs: zeros, apply)


class Case(NamedTuple):
    double: bool
    dueling: bool
    prioritised: bool
    n_step: int

    def __str__(self):
        names = ("double", "dueling", "prioritised")
        on = [name for name, here in zip(names, self[:3], strict=True) if here]
        return "-".join([*on, f"{self.n_step}-step"])


CASES = [Case(*options) for options in itertools.product(*[[False, True]] * 3, [1, 3])]


SOON = CASES[-1:]
"""Everything switched on: tested each time, the others by `scripts/test slow`."""


def agent_of(case, *, capacity=400, **options):
    """An agent in the corridor whose values are numbers in a table."""
    replay = prioritized(capacity=capacity) if case.prioritised else ring(capacity=capacity)
    settings = {
        "epsilon": optax.constant_schedule(1.0),
        "envs": 4,
        "steps_per_update": 2,
        "replay_batch_size": 16,
        "learning_starts": 50,
        "gamma": GAMMA,
        "n_step": case.n_step,
        "target_every": 5,
        "double": case.double,
    }
    tx, net = options.pop("tx", optax.sgd(0.5)), options.pop("net", table(case.dueling))
    return dqn(CORRIDOR, net, tx, replay, **{**settings, **options})


# ---- what every combination of options keeps


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in SOON else pytest.mark.slow) for case in CASES],
    ids=str,
)
@traced_once()
def test_what_every_agent_promises(case, tmp_path):
    """A resumed run equals one that never stopped, seeds in one program equal each alone, and
    values become the optimal ones: with a weight for each, DQN is Q-learning, which converges.

    Three-step values are of the play that made them, which is greedy in the end: then the values
    of its actions are optimal.
    """
    one_step = case.n_step == 1
    schedule = optax.constant_schedule(1.0) if one_step else optax.linear_schedule(1.0, 0.0, 600)
    agent, keys = agent_of(case, capacity=400 if one_step else 64, epsilon=schedule), run_keys(3, 2)
    start = jax.jit(lambda keys: lax.map(agent.init, keys))(keys)._replace(step=jnp.int32(0))
    whole, metrics = trained(agent, keys, start, 8)
    assert set(metrics) == {"loss", "td_mean", "td_variance", "return"}
    assert all(np.isfinite(values).all() for values in metrics.values())

    part, _ = trained(agent, keys, start, 5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, part, {})
        checkpoints.wait()
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, start))
    assert same_bits(trained(agent, keys, restored, 8)[0], whole)

    def second(tree):
        return jax.tree.map(lambda leaf: leaf[1:] if leaf.ndim else leaf, tree)

    alone, _ = trained(agent, keys[1:], second(start), 8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, second(whole)
    )

    last, _ = trained(agent, keys, whole, 1500)
    for params in per_seed(last.params):
        found = np.asarray(table(case.dueling).apply(params, jnp.eye(PLACES)))
        tested = np.s_[:] if one_step else np.s_[:, 1]
        np.testing.assert_allclose(found[tested], optimal_values()[tested], atol=0.01)
        assert agent.greedy(params, jnp.eye(PLACES)).tolist() == [1] * PLACES


def trained(agent, keys, state, steps):
    *_, (_, state, metrics) = loop(agent.step, NOTHING, keys, state, steps=steps)
    return state, metrics


# ---- what a step does


def quick(function, *args):
    """The function, compiled for these arguments in a hurry: compilers take longer than it does."""
    return jax.jit(function).lower(*args).compile({"xla_backend_optimization_level": "0"})


ENVS, PLAYS, EVERY, RATE = 40, 25, 3, 0.25


@functools.cache
def some_steps():
    """An agent, and its states before and after each of seven steps."""
    agent = agent_of(
        CASES[0],
        capacity=ENVS * PLAYS,
        envs=ENVS,
        steps_per_update=PLAYS,
        target_every=EVERY,
        target_rate=RATE,
        epsilon=optax.linear_schedule(0.8, 0.2, 3),
    )
    key = jax.random.key(0)
    states = [quick(agent.init, key)(key)]
    step = quick(agent.step, key, states[0], ())
    for i in range(7):
        states.append(step(jax.random.key(i), states[-1], ())[0])
    return agent, states


def test_the_target_net_moves_at_its_steps_and_rests_between():
    _, states = some_steps()
    for i, (before, after) in enumerate(itertools.pairwise(states), start=1):
        old, new, net = (t["advantage"] for t in (before.target, after.target, after.params))
        assert not np.array_equal(net, before.params["advantage"])
        wanted = (1 - RATE) * old + RATE * net if i % EVERY == 0 else old
        np.testing.assert_allclose(new, wanted, rtol=1e-6, atol=1e-7)


def test_exploration_follows_its_schedule():
    """Half of the random actions are, of two, the one that is thought to be worse."""
    agent, states = some_steps()
    epsilons = [0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2]
    for epsilon, before, after in zip(epsilons, states[:-1], states[1:], strict=True):
        made = after.memory.items
        worse = made.action != agent.greedy(before.params, made.obs)
        assert worse.mean() == pytest.approx(epsilon / 2, abs=0.05)


def test_what_is_remembered_is_what_was_played():
    """Each transition against the rules; and what came next was seen next, but for new episodes."""
    _, states = some_steps()
    made = jax.tree.map(np.asarray, states[1].memory.items)  # random enough to meet the clock
    place, after = made.obs.argmax(1), made.next_obs.argmax(1)
    to = place + np.where(made.action == 1, 1, -1)
    np.testing.assert_array_equal(after, np.clip(to, 0, PLACES - 1))
    ends = (to < 0) | (to == PLACES)
    np.testing.assert_allclose(made.discount, np.where(ends, 0, GAMMA))
    reward = np.where(to == PLACES, GOAL, np.where(to < 0, CLIFF, STEP))
    np.testing.assert_allclose(made.reward, reward, rtol=1e-6)
    jumps = after[:-ENVS] != place[ENVS:]
    by_the_clock = (jumps & ~ends[:-ENVS]).sum()
    assert 0 < by_the_clock <= ENVS * (PLAYS // LIMIT + 1)


def test_returns_are_of_whole_episodes():
    """Steps and an end, or steps until the clock: nothing else is a sum of rewards."""
    _, states = some_steps()
    steps = STEP * np.arange(LIMIT)
    sums = np.concatenate([steps + GOAL, steps + CLIFF, [STEP * LIMIT]])
    found = np.asarray(states[-1].play.finished)
    assert np.abs(found[:, None] - sums).min(axis=1).max() < 1e-5
    assert np.ptp(found) > 1


def test_a_prioritised_sample_is_weighed_and_its_priorities_renewed():
    """One step, beside the sample that its key draws from the same memory."""
    replay, exponent, size = prioritized(capacity=400), 0.7, 52
    agent = agent_of(
        Case(False, False, True, 1),
        tx=optax.sgd(1.0),
        steps_per_update=1,
        is_exponent=optax.constant_schedule(exponent),
    )

    def run(key):
        state = agent.init(jax.random.key(0))
        priorities = jax.random.uniform(jax.random.key(1), (size,), minval=0.1, maxval=2)
        state = state._replace(memory=replay.update(state.memory, jnp.arange(size), priorities))
        after, _ = agent.step(key, state, ())
        _, _, sample_key = jax.random.split(key, 3)
        made = jax.tree.map(lambda leaf: leaf[size : size + 4], after.memory.memory.items)
        memory = replay.add(None, state.memory, made)
        sample = replay.sample(sample_key, memory, 16, is_exponent=exponent)
        return after, memory, sample, agent.errors(state.params, state.target, sample.items)

    key = jax.random.key(5)
    after, memory, sample, errors = quick(run, key)(key)
    errors = np.asarray(errors)
    assert np.ptp(sample.weights) > 0.1
    change = np.zeros((PLACES, 2))
    place, action = np.argmax(sample.items.obs, 1), np.asarray(sample.items.action)
    np.add.at(change, (place, action), np.asarray(sample.weights) * np.clip(errors, -1, 1) / 16)
    np.testing.assert_allclose(after.params["advantage"], change, rtol=1e-5, atol=1e-7)

    expected = np.array(memory.tree[0]).ravel()
    expected[np.asarray(sample.indices)] = (np.abs(errors) + 1e-6) ** 0.6
    np.testing.assert_allclose(np.ravel(after.memory.tree[0]), expected, rtol=1e-5)


# ---- no copies, whole episodes, mistakes


@pytest.mark.parametrize("prioritised", [False, True])
def test_a_memory_is_carried_through_the_steps_in_place(prioritised):
    capacity = 100_003
    agent = agent_of(Case(True, False, prioritised, 2), capacity=capacity)

    def run(state, keys):
        return lax.scan(lambda state, key: agent.step(key, state, ()), state, keys)

    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    program = jax.jit(run, donate_argnums=0).lower(state, keys).compile()
    assert program.memory_analysis().temp_size_in_bytes < capacity


def test_returns_of_a_policy_are_those_of_its_episodes():
    def act(obs):
        return (obs[:, 2] + 0.5 * obs[:, 3] > 0).astype(jnp.int32)

    always_left = lambda obs: jnp.zeros(len(obs), jnp.int32)  # noqa: E731
    env, key = cart_pole(), jax.random.key(0)
    good = episode_returns(key, env, act, episodes=10)
    np.testing.assert_array_equal(good, 500)
    bad = episode_returns(key, env, always_left, episodes=200)
    assert set(np.unique(bad)) <= {8.0, 9.0, 10.0, 11.0}
    assert np.ptp(bad) > 0
    right = lambda obs: jnp.ones(len(obs), jnp.int32)  # noqa: E731
    found = np.unique(np.round(episode_returns(key, CORRIDOR, right, episodes=50), 4))
    np.testing.assert_allclose(found, GOAL + STEP * np.arange(PLACES), atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"replay_batch_size": 0}, "replay_batch_size=0: choose at least 1"),
        ({"steps_per_update": 0}, "steps_per_update=0: choose at least 1"),
        ({"learning_starts": 0}, "learning_starts=0: choose at least 1"),
        ({"envs": 0}, "envs=0: choose at least 1"),
        ({"target_every": 0}, "target_every=0: choose at least 1"),
        ({"target_rate": 0.0}, "target_rate=0.0: choose a share above 0"),
        ({"target_rate": 1.5}, "target_rate=1.5: choose a share above 0, at most 1"),
        ({"huber_delta": 0.0}, "huber_delta=0.0: choose a number above 0"),
        ({"gamma": 1.5}, "gamma=1.5: choose a discount"),
        ({"n_step": 0}, "n_step=0: choose at least 1"),
    ],
)
def test_wrong_numbers_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        agent_of(CASES[0], **wrong)


def test_a_net_that_does_not_fit_is_refused():
    agent = agent_of(CASES[0], net=mlp((3,)))
    with pytest.raises(InputError, match=r"the net gives \[4, 3\].* has 2 actions"):
        agent.init(jax.random.key(0))
