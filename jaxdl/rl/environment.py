"""Environments: `reset` and `step`, two pure functions of one episode."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Shaped

from jaxdl.types import Array, Key, PyTree, Scalar


class Outcome(NamedTuple):
    """The result of a step: state, observation and reward, and whether the episode is over.

    `terminated`: the episode reached a final state, so later rewards are 0. `truncated`: its time
    limit cut it, and later rewards exist. At most one of the two is true.
    """

    state: PyTree
    obs: PyTree
    reward: Scalar
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


Reset = Callable[[Key], tuple[PyTree, PyTree]]
"""`key -> (state, obs)`: the start of an episode."""

Step = Callable[[Key, PyTree, Array], Outcome]
"""`(key, state, action) -> outcome`. Vmap it for more than one episode."""


class Environment(NamedTuple):
    """An environment with discrete actions, int32 in `[0, actions)`. An observation is one array.

    Every episode ends, terminated or truncated, after `limit` steps at the latest.
    """

    reset: Reset
    step: Step
    actions: int
    limit: int


def is_over(terminated: Shaped[Array, "*n"], truncated: Shaped[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether episodes have ended. The flags of an environment may be numbers, 0 or 1."""
    return terminated.astype(bool) | truncated.astype(bool)


def auto_reset(reset: Reset, step: Step) -> Callable[[Key, PyTree, Array], tuple[Outcome, PyTree]]:
    """A step that starts a new episode where one ended: `(key, state, action) -> (outcome, obs)`.

    The outcome has the state and the observation for the next action. After an end, both are those
    of the new episode. `obs` is the observation after the action itself. It is the `next_obs` of
    `jaxdl.replay.nstep.Step`: a truncated episode is bootstrapped from it.
    """

    def going_on(key: Key, state: PyTree, action: Array) -> tuple[Outcome, PyTree]:
        step_key, reset_key = jax.random.split(key)
        outcome = step(step_key, state, action)
        ended = is_over(outcome.terminated, outcome.truncated)
        state, obs = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old),
            reset(reset_key),
            (outcome.state, outcome.obs),
        )
        return outcome._replace(state=state, obs=obs), outcome.obs

    return going_on
