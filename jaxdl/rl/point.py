"""2D navigation: a point in the plane that moves to a goal (MAML, arXiv:1703.03400, section 5.3.1).

A task is a goal in a square around the start. The observation is the position of the point, and not
the goal. Three things follow the authors' code and not the paper's text. The reward is minus the
distance, and not minus its square: only so does an untrained policy earn the paper's -40 in 100
steps. Actions are clipped to 1. The goal is reached if both coordinates are right to 0.01.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.rl.environment import Outcome, Reset, Step
from jaxdl.types import Array, Key

SPEED, REACHED, LIMIT = 0.1, 0.01, 100
"""Largest step and precision of the goal, both per coordinate, and the time limit in steps."""

SIDE = 1.0
"""Side of the square of goals."""


class Point(NamedTuple):
    """`position` and `goal` `[2]`; `steps` so far, int32."""

    position: Array
    goal: Array
    steps: Array


def draw_goal(key: Key) -> Array:
    """A task `[2]`, uniform in the square around the origin."""
    return jax.random.uniform(key, (2,), minval=-SIDE / 2, maxval=SIDE / 2)


def reset(key: Key | None, goal: Array) -> tuple[Point, Array]:
    """The start of an episode at the origin, and its observation, the position."""
    del key  # every episode starts at the origin
    return Point(jnp.zeros(2), goal, jnp.int32(0)), jnp.zeros(2)


def step(key: Key | None, state: Point, action: Array) -> Outcome:
    """A move by `SPEED` times `action` `[2]`, clipped to `[-1, 1]`. It observes the position."""
    del key  # moves are deterministic
    position = state.position + SPEED * jnp.clip(action, -1, 1)
    away = position - state.goal
    after = Point(position, state.goal, state.steps + 1)
    terminated = jnp.all(jnp.abs(away) < REACHED)
    truncated = (after.steps >= LIMIT) & ~terminated
    # The square root has no derivative at 0. None is needed, because returns are data.
    return Outcome(after, position, -jnp.linalg.norm(away), terminated, truncated)


def environment(goal: Array) -> tuple[Reset, Step]:
    """The environment of one task."""
    return partial(reset, goal=goal), step


def informed(goal: Array) -> tuple[Reset, Step]:
    """The environment of one task for an oracle, which observes position and goal `[4]`."""

    def see(state: Point) -> Array:
        return jnp.concatenate([state.position, state.goal])

    def informed_reset(key: Key) -> tuple[Point, Array]:
        state, _ = reset(key, goal)
        return state, see(state)

    def informed_step(key: Key, state: Point, action: Array) -> Outcome:
        outcome = step(key, state, action)
        return outcome._replace(obs=see(outcome.state))

    return informed_reset, informed_step
