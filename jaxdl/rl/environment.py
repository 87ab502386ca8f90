"""Environments as an agent sees them, and whole episodes played in many of them side by side."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.rl import cartpole
from jaxdl.rl.cartpole import Reset, Step
from jaxdl.types import Array, Key, PyTree


class Environment(NamedTuple):
    """Two pure functions of one episode; actions are int32 in `[0, actions)`.

    `reset(key) -> (state, obs)`, `step(key, state, action) -> Outcome`. The observation is one
    array; every episode is over, terminated or truncated, after `limit` steps at the latest.
    """

    reset: Reset
    step: Step
    actions: int
    limit: int


def cart_pole() -> Environment:
    """CartPole-v1; see `jaxdl.rl.cartpole`."""
    return Environment(cartpole.reset, cartpole.step, 2, cartpole.LIMIT)


def episode_returns(
    key: Key, env: Environment, act: Callable[[PyTree], Array], *, episodes: int
) -> Array:
    """The sums of rewards `[episodes]` of whole episodes, each from a start of its own.

    `act(obs [episodes, ...]) -> actions [episodes]` is deterministic. What comes after an end does
    not count, and no episode begins a second time: those that fail early weigh as much as others.
    """
    reset_key, steps_key = jax.random.split(key)
    states, obs = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))

    def going_on(carry: tuple[Array, PyTree, PyTree, Array, Array]) -> Array:
        i, _, _, alive, _ = carry
        return alive.any() & (i < env.limit)

    def once(
        carry: tuple[Array, PyTree, PyTree, Array, Array],
    ) -> tuple[Array, PyTree, PyTree, Array, Array]:
        i, states, obs, alive, total = carry
        keys = jax.random.split(jax.random.fold_in(steps_key, i), episodes)
        outcome = jax.vmap(env.step)(keys, states, act(obs))
        total = total + jnp.where(alive, outcome.reward, 0)
        alive = alive & ~(outcome.terminated | outcome.truncated)
        return i + 1, outcome.state, outcome.obs, alive, total

    start = jnp.int32(0), states, obs, jnp.ones(episodes, bool), jnp.zeros(episodes)
    return lax.while_loop(going_on, once, start)[-1]
