"""Returns over several steps against a loop in NumPy, with ends of episodes of both kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.replay.nstep import Step, Transition, n_step, n_step_return


def stream(seed, length):
    rng = np.random.default_rng(seed)
    return Step(
        obs=np.float32(rng.normal(size=(length, 3))),
        action=rng.integers(0, 4, length).astype(np.int32),
        reward=np.float32(rng.normal(size=length)),
        next_obs=np.float32(rng.normal(size=(length, 3))),
        terminated=rng.random(length) < 0.15,
        truncated=rng.random(length) < 0.1,
    )


def by_a_loop(steps, begin, n, gamma):
    """The transition from one step on, as the definition says it."""
    reward, discount = 0.0, 1.0
    for i in range(begin, begin + n):
        reward += discount * float(steps.reward[i])
        discount *= gamma
        if steps.terminated[i]:
            discount = 0.0
        if steps.terminated[i] or steps.truncated[i]:
            break
    return Transition(steps.obs[begin], steps.action[begin], reward, discount, steps.next_obs[i])


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_transitions_of_a_stream_are_those_of_a_loop(n, gamma):
    streams, length = [stream(seed, 60) for seed in range(3)], 60
    many = n_step(steps=n, gamma=gamma)

    def run(steps):
        first = jax.tree.map(lambda leaf: leaf[0], steps)
        push = lambda window, step: (lambda w, *out: (w, out))(*many.push(window, step))  # noqa: E731
        return lax.scan(push, many.init(first), steps)[1]

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *streams)
    found, ready = jax.jit(jax.vmap(run))(stacked)
    np.testing.assert_array_equal(ready, np.tile(np.arange(length) >= n - 1, (3, 1)))
    for which, steps in enumerate(streams):
        for begin in range(length - n + 1):
            expected = by_a_loop(steps, begin, n, gamma)
            here = jax.tree.map(lambda leaf, w=which, i=begin + n - 1: leaf[w, i], found)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), here, expected
            )


def test_a_return_by_hand():
    ends = jnp.array([False, False, True, False])
    none = jnp.zeros(4, bool)
    rewards = jnp.array([1.0, 10.0, 100.0, 1000.0])
    assert n_step_return(rewards, ends, none, gamma=0.5) == (31, 0, 2)
    assert n_step_return(rewards, none, ends, gamma=0.5) == (31, 0.125, 2)
    assert n_step_return(rewards, none, none, gamma=0.5) == (156, 0.0625, 3)


def test_what_lies_past_the_end_does_not_count_even_if_it_is_not_a_number():
    rewards = jnp.array([1.0, jnp.nan])
    ends = jnp.array([True, False])
    assert n_step_return(rewards, ends, ends, gamma=0.5) == (1, 0, 0)


@pytest.mark.parametrize(
    ("steps", "gamma", "words"),
    [(0, 0.9, "at least 1 step"), (1, 1.1, "from 0 to 1"), (1, float("nan"), "from 0 to 1")],
)
def test_settings_out_of_range_are_refused(steps, gamma, words):
    with pytest.raises(InputError, match=words):
        n_step(steps=steps, gamma=gamma)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bfloat16", "bool"])
def test_rewards_of_any_type_are_discounted(dtype):
    """A discount in the type of the rewards would be 0, or rounded to 1."""
    rewards, no = jnp.ones(3, dtype), jnp.zeros(3, jnp.int32)
    reward, discount, last = n_step_return(rewards, no, no, gamma=0.999)
    np.testing.assert_allclose(reward, 1 + 0.999 + 0.999**2, rtol=1e-6)
    np.testing.assert_allclose(discount, 0.999**3, rtol=1e-6)
    assert last == 2
    over = no.at[1].set(1)
    reward, discount, last = n_step_return(rewards, over, no, gamma=0.999)
    np.testing.assert_allclose([reward, discount, last], [1.999, 0, 1], rtol=1e-6)
