"""Trajectories: many episodes of one environment side by side, step after step inside a scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.rl.environment import Reset, Step
from jaxdl.types import Array, Key


class Trajectories(NamedTuple):
    """`n` episodes, all `[steps, n, ...]`, time first.

    `mask` is 1 up to the step that ends an episode, which counts, and 0 after it, where the other
    fields hold what nobody should look at; `reward` is 0 there.
    """

    obs: Array
    action: Array
    reward: Array
    mask: Array

    def total(self) -> Array:
        """The undiscounted return of each episode, `[n]`."""
        return jnp.sum(self.reward, axis=0)


def rollout(
    key: Key,
    act: Callable[[Key, Array], Array],
    reset: Reset,
    step: Step,
    *,
    trajectories: int,
    horizon: int,
) -> Trajectories:
    """Plays episodes until they end, or for `horizon` steps.

    `act(key, obs) -> action` sees all of them at once, `[trajectories, ...]`, so that a policy is
    one matrix product a layer and step.
    """
    start_key, scan_key = jax.random.split(key)
    state, obs = jax.vmap(reset)(jax.random.split(start_key, trajectories))

    def one_step(carry: Any, key: Key) -> tuple[Any, Trajectories]:
        state, obs, mask = carry
        act_key, step_key = jax.random.split(key)
        action = act(act_key, obs)
        outcome = jax.vmap(step)(jax.random.split(step_key, trajectories), state, action)
        seen = Trajectories(obs, action, mask * outcome.reward, mask)
        going = ~(outcome.terminated | outcome.truncated)
        return (outcome.state, outcome.obs, mask * going), seen

    start = state, obs, jnp.ones(trajectories)
    return lax.scan(one_step, start, jax.random.split(scan_key, horizon))[1]
