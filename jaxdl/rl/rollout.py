"""Many episodes of one environment in parallel: trajectories for training, and returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int, Shaped

from jaxdl.losses import without_void
from jaxdl.rl.environment import Environment, Reset, Step, is_over
from jaxdl.types import Array, Count, Key, PyTree

PerStep = Float[Array, "steps n"]
"""One number per step and episode, time first."""


class Trajectories(NamedTuple):
    """`n` episodes, all `[steps, n, ...]`, time first.

    `mask` is 1 up to and including the step that ends an episode, and 0 after it. Where `mask` is
    0, `reward` is 0, and the other fields have no meaning.
    """

    obs: Shaped[Array, "steps n ..."]
    action: Shaped[Array, "steps n ..."]
    reward: PerStep
    mask: PerStep

    def total(self) -> Float[Array, " n"]:
        """The undiscounted return of each episode."""
        return jnp.sum(self.reward, axis=0)


Going = tuple[PyTree, PyTree, Float[Array, " n"]]
"""States and observations of episodes, and 1 for each that has not ended."""

Whole = tuple[Count, PyTree, PyTree, Bool[Array, " episodes"], Float[Array, " episodes"]]
"""Steps taken, states, observations, whether each episode has not ended, its sum of rewards."""


def rollout(
    key: Key,
    act: Callable[[Key, Shaped[Array, "n ..."]], Shaped[Array, "n ..."]],
    reset: Reset,
    step: Step,
    *,
    trajectories: int,
    horizon: int,
) -> Trajectories:
    """Plays episodes until they end, or for `horizon` steps.

    `act(key, obs) -> action` gets the observations of all episodes at once, `[trajectories, ...]`.
    So a policy costs one matrix product per layer and step.
    """
    start_key, scan_key = jax.random.split(key)
    state, obs = jax.vmap(reset)(jax.random.split(start_key, trajectories))

    def one_step(carry: Going, key: Key) -> tuple[Going, PyTree]:
        state, obs, mask = carry
        act_key, step_key = jax.random.split(key)
        action = act(act_key, obs)
        outcome = jax.vmap(step)(jax.random.split(step_key, trajectories), state, action)
        seen = Trajectories(obs, action, jnp.where(mask > 0, outcome.reward, 0), mask)
        mask = mask * ~is_over(outcome.terminated, outcome.truncated)
        # What an environment shows after its end may be NaN, which no mask takes out of a gradient.
        return (outcome.state, without_void(outcome.obs, mask), mask), seen

    start = state, obs, jnp.ones(trajectories)
    return lax.scan(one_step, start, jax.random.split(scan_key, horizon))[1]


def episode_returns(
    key: Key, env: Environment, act: Callable[[PyTree], Int[Array, " episodes"]], *, episodes: int
) -> Float[Array, " {episodes}"]:
    """The sums of rewards of whole episodes, each with its own random start.

    `act(obs [episodes, ...]) -> actions [episodes]` is deterministic. Rewards after an end do not
    count, and no episode begins again. So an episode that fails early counts as much as a long one.
    """
    reset_key, steps_key = jax.random.split(key)
    states, obs = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))

    def going_on(carry: Whole) -> Bool[Array, ""]:
        i, _, _, alive, _ = carry
        return alive.any() & (i < env.limit)

    def once(carry: Whole) -> Whole:
        i, states, obs, alive, total = carry
        keys = jax.random.split(jax.random.fold_in(steps_key, i), episodes)
        outcome = jax.vmap(env.step)(keys, states, act(obs))
        total = total + jnp.where(alive, outcome.reward, 0)
        alive = alive & ~is_over(outcome.terminated, outcome.truncated)
        return i + 1, outcome.state, outcome.obs, alive, total

    start = jnp.int32(0), states, obs, jnp.ones(episodes, bool), jnp.zeros(episodes)
    return lax.while_loop(going_on, once, start)[-1]
