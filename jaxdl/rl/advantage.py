"""Advantages of actions: returns, GAE and a linear baseline.

All arrays are `[steps, n]`, time first, for `n` episodes. Steps after the end of an episode have
reward and value 0, so they change nothing before it.
"""

import math

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, Shaped

from jaxdl.errors import InputError
from jaxdl.optim.lapack import in_turn
from jaxdl.rl.rollout import PerStep, Trajectories
from jaxdl.types import Array


def discounted(values: Shaped[Array, " steps *n"], discount: float) -> Float[Array, " steps *n"]:
    """At each step, the sum of `values` from this step on, weighted by `discount ** delay`."""

    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))

    def add(
        later: Float[Array, "*n"], now: Float[Array, "*n"]
    ) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
        total = now + discount * later
        return total, total

    return lax.scan(add, jnp.zeros(values.shape[1:], values.dtype), values, reverse=True)[1]


def generalised(reward: Array, value: Array, *, discount: float, gae_lambda: float) -> PerStep:
    """The advantages of GAE (Schulman et al. 2016, arXiv:1506.02438).

    The value after the last step is 0. So an episode that was cut by its time limit is not
    bootstrapped: returns are those of a finite horizon, as in the code of TRPO and MAML. With
    `gae_lambda` 1, an advantage is the return minus the value. With 0, it is the TD error of one
    step.

    Raises:
        InputError: if the shapes of reward and value differ.
    """
    if reward.shape != value.shape:
        raise InputError(
            f"rewards {list(reward.shape)} and values {list(value.shape)} differ in shape: give"
            " both as [steps, n]"
        )
    after = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    return discounted(reward + discount * after - value, discount * gae_lambda)


def features(obs: Float[Array, "steps n f"]) -> Float[Array, "steps n 2*f+4"]:
    """The features of the linear baseline (Duan et al. 2016, arXiv:1604.06778, section 4).

    They are the observations and their squares, time (in hundreds of steps), its square and its
    cube, and 1.
    """
    obs = jnp.clip(obs, -10, 10)
    time = jnp.broadcast_to(
        jnp.arange(obs.shape[0], dtype=obs.dtype)[:, None, None] / 100, (*obs.shape[:2], 1)
    )
    return jnp.concatenate([obs, obs**2, time, time**2, time**3, jnp.ones_like(time)], axis=-1)


def linear_baseline(
    obs: Float[Array, "steps n f"],
    target: PerStep,
    mask: PerStep,
    *,
    ridge: float = 1e-5,
) -> PerStep:
    """The values that a regression on `features` predicts for `target`, 0 where `mask` is 0.

    It is least squares over the steps of `mask` 1, plus `ridge` times the squared coefficients. It
    uses QR of the features and not the normal equations, because these square the condition number.
    In float32 that is too much: powers of time are nearly dependent.
    """
    rows = jnp.where(mask[..., None] > 0, features(obs), 0)  # an end may be followed by NaN
    count = rows.shape[-1]
    tall = jnp.concatenate([rows.reshape(-1, count), math.sqrt(ridge) * jnp.eye(count)])
    right = jnp.concatenate([(target * mask).ravel(), jnp.zeros(count)])

    def least_squares(tall: Float[Array, "n f"], right: Float[Array, " n"]) -> Float[Array, " f"]:
        q, r = jnp.linalg.qr(tall)
        return solve_triangular(r, right @ q)

    return rows @ in_turn(least_squares)(tall, right)


def advantages(played: Trajectories, *, discount: float, gae_lambda: float) -> PerStep:
    """GAE over a linear baseline that is fitted to these same trajectories.

    Advantages have mean 0 and deviation 1 over the steps of mask 1, and are 0 at the others.
    """
    returns = discounted(played.reward, discount)
    value = linear_baseline(played.obs, returns, played.mask)
    raw = generalised(played.reward, value, discount=discount, gae_lambda=gae_lambda)
    count = jnp.sum(played.mask)
    centered = (raw - jnp.sum(raw * played.mask) / count) * played.mask
    return centered / (jnp.sqrt(jnp.sum(jnp.square(centered)) / count) + 1e-8)
