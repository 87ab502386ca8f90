"""A point in the plane that looks for a goal, the first tasks of MAML's reinforcement learning.

Section 5.3.1 of arXiv:1703.03400. A task is a goal, anywhere in a square about the start; the point
sees where it is and not where it should be. As in the authors' code, and not as in the paper's
text, the reward is minus the distance and not its square (only with the distance does an untrained
policy earn the -40 of the paper in 100 steps), actions of one are the longest steps, and the goal
is reached where both coordinates are right to 0.01.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.rl.environment import Outcome, Reset, Step
from jaxdl.types import Array, Key

SPEED, REACHED, LIMIT = 0.1, 0.01, 100
"""The longest step and the precision asked for, of each coordinate; where time is up, in steps."""

SIDE = 1.0
"""Of the square of goals."""


class Point(NamedTuple):
    """`position` and `goal` `[2]`; `steps` so far, int32."""

    position: Array
    goal: Array
    steps: Array


def draw_goal(key: Key) -> Array:
    """A task `[2]`, uniform in the square about the origin."""
    return jax.random.uniform(key, (2,), minval=-SIDE / 2, maxval=SIDE / 2)


def reset(key: Key | None, goal: Array) -> tuple[Point, Array]:
    """The start of an episode, at the origin, which is what is seen."""
    del key  # every episode starts at the same place
    return Point(jnp.zeros(2), goal, jnp.int32(0)), jnp.zeros(2)


def step(key: Key | None, state: Point, action: Array) -> Outcome:
    """A move by `action` `[2]`, clipped to `[-1, 1]`, times `SPEED`; the position is seen."""
    del key  # no chance in its physics
    position = state.position + SPEED * jnp.clip(action, -1, 1)
    away = position - state.goal
    after = Point(position, state.goal, state.steps + 1)
    terminated = jnp.all(jnp.abs(away) < REACHED)
    truncated = (after.steps >= LIMIT) & ~terminated
    # The square root has no derivative at 0, and nobody asks for one: returns are data.
    return Outcome(after, position, -jnp.linalg.norm(away), terminated, truncated)


def environment(goal: Array) -> tuple[Reset, Step]:
    """The environment of one task."""
    return partial(reset, goal=goal), step


def informed(goal: Array) -> tuple[Reset, Step]:
    """The same for an oracle, which sees `[4]`: the position and the goal."""

    def see(state: Point) -> Array:
        return jnp.concatenate([state.position, state.goal])

    def informed_reset(key: Key) -> tuple[Point, Array]:
        state, _ = reset(key, goal)
        return state, see(state)

    def informed_step(key: Key, state: Point, action: Array) -> Outcome:
        outcome = step(key, state, action)
        return outcome._replace(obs=see(outcome.state))

    return informed_reset, informed_step
