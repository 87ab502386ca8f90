"""What an environment is: two pure functions of one episode, and what a step leads to."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from jaxdl.types import Array, Key, PyTree, Scalar


class Outcome(NamedTuple):
    """What a step leads to: the state, what is seen of it, and whether the episode is over.

    `terminated`: it failed, or is won, and nothing comes after. `truncated`: time is up, and it
    would go on. Never both.
    """

    state: PyTree
    obs: PyTree
    reward: Scalar
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


Reset = Callable[[Key], tuple[PyTree, PyTree]]
"""`key -> (state, obs)`: the start of an episode."""

Step = Callable[[Key, PyTree, Array], Outcome]
"""`(key, state, action) -> outcome`; vmap for more than one episode."""


class Environment(NamedTuple):
    """An environment of numbered actions, int32 in `[0, actions)`, whose view is one array.

    Every episode is over, terminated or truncated, after `limit` steps at the latest.
    """

    reset: Reset
    step: Step
    actions: int
    limit: int


def auto_reset(reset: Reset, step: Step) -> Callable[[Key, PyTree, Array], tuple[Outcome, PyTree]]:
    """A step that begins the next episode where one ended: `(key, state, action)` gives a pair.

    The outcome has the state and observation to act on, of the new episode where one began. Beside
    it stands what the action itself led to, the `next_obs` of `jaxdl.replay.nstep.Step`, which is
    what a truncated episode is bootstrapped from.
    """

    def going_on(key: Key, state: PyTree, action: Array) -> tuple[Outcome, PyTree]:
        step_key, reset_key = jax.random.split(key)
        outcome = step(step_key, state, action)
        ended = outcome.terminated | outcome.truncated
        state, obs = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old),
            reset(reset_key),
            (outcome.state, outcome.obs),
        )
        return outcome._replace(state=state, obs=obs), outcome.obs

    return going_on
