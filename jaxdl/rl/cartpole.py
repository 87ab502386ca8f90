"""CartPole-v1 (Barto, Sutton and Anderson 1983) as pure functions.

In each step an action pushes the cart left or right, to keep its pole upright. The reward is 1 per
step, the last one included. The episode terminates if the pole leans by more than 12 degrees, or if
the cart is more than 2.4 from the centre. It is truncated after 500 steps.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.rl.environment import Environment, Outcome
from jaxdl.types import Array, Key

GRAVITY, CART_MASS, POLE_MASS = 9.8, 1.0, 0.1
HALF_LENGTH, FORCE, SECONDS = 0.5, 10.0, 0.02
"""Half the length of the pole, the force of a push, and the seconds of a step of Euler's method."""

TRACK, LEAN, LIMIT = 2.4, 12 * math.pi / 180, 500
"""An episode ends at this position, at this angle in radians, or after these steps."""


class CartPole(NamedTuple):
    """`physics` `[4]`: position, velocity, angle, angular velocity. `steps` so far, int32."""

    physics: Array
    steps: Array


def reset(key: Key) -> tuple[CartPole, Array]:
    """The start of an episode and its observation. All numbers are uniform in [-0.05, 0.05)."""
    physics = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return CartPole(physics, jnp.int32(0)), physics


def step(key: Key | None, state: CartPole, action: Array) -> Outcome:
    """A push to the left (0) or to the right (1).

    It steps one episode, in float32: vmap it for more. A step after the end continues the physics.
    """
    del key  # the physics is deterministic
    _, speed, angle, turning = state.physics
    force = jnp.where(action == 1, FORCE, -FORCE)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass = CART_MASS + POLE_MASS
    pull = POLE_MASS * HALF_LENGTH
    push = (force + pull * turning**2 * sine) / mass
    inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * cosine**2 / mass)
    turning_rate = (GRAVITY * sine - cosine * push) / inertia
    speed_rate = push - pull * turning_rate * cosine / mass
    # Euler: positions move by the speeds from before.
    physics = state.physics + SECONDS * jnp.stack([speed, speed_rate, turning, turning_rate])
    after = CartPole(physics, state.steps + 1)
    terminated = (jnp.abs(physics[0]) > TRACK) | (jnp.abs(physics[2]) > LEAN)
    truncated = (after.steps >= LIMIT) & ~terminated
    return Outcome(after, physics, jnp.float32(1), terminated, truncated)


def cart_pole() -> Environment:
    """CartPole-v1."""
    return Environment(reset, step, 2, LIMIT)
