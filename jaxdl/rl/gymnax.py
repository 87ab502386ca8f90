"""Environments of gymnax (Lange 2022) with discrete actions. They need the extra `rl`."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdl.errors import InputError, extra
from jaxdl.rl.environment import Environment, Outcome
from jaxdl.types import Array, Key, PyTree


def gymnax(name: str) -> Environment:
    """The gymnax environment `name` with its default parameters. Observations are float32.

    The time limit truncates, and every other end terminates. If both happen in one step, the
    episode is terminated.

    Raises:
        InputError: if gymnax is not installed or does not know the name, or if the environment's
            actions are not discrete.
    """
    with extra("rl"):
        import gymnax as package
        from gymnax.environments.spaces import Discrete
    try:
        env, params = package.make(name)
    except ValueError as error:
        known = " ".join(sorted(package.registered_envs))
        raise InputError(f"gymnax has no environment {name!r}; choose among {known}") from error
    space = env.action_space(params)
    if not isinstance(space, Discrete):
        raise InputError(
            f"gymnax:{name} has actions that are not discrete; choose an environment with discrete"
            " actions for DQN"
        )

    def seen(obs: ArrayLike) -> Array:
        return jnp.asarray(obs, jnp.float32)

    def reset(key: Key) -> tuple[PyTree, Array]:
        obs, state = env.reset_env(key, params)
        return state, seen(obs)

    def step(key: Key, state: PyTree, action: Array) -> Outcome:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        terminated = jnp.asarray(terminated, bool)
        truncated = env.is_truncated(state, params) & ~terminated
        return Outcome(state, seen(obs), jnp.asarray(reward, jnp.float32), terminated, truncated)

    return Environment(reset, step, int(space.n), int(params.max_steps_in_episode))
