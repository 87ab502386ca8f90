"""How much better an action was than usual: returns, GAE and a linear baseline.

Everything has time first, `[steps, n]`, for `n` episodes side by side. What comes after the end of
an episode has reward and value 0 and so changes nothing before it.
"""

import math

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.rl.rollout import PerStep, Trajectories
from jaxdl.types import Array


def discounted(values: Float[Array, " steps *n"], discount: float) -> Float[Array, " steps *n"]:
    """At each step, the sum of `values` from there on, each weighted by `discount ** delay`."""

    def add(
        later: Float[Array, "*n"], now: Float[Array, "*n"]
    ) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
        total = now + discount * later
        return total, total

    return lax.scan(add, jnp.zeros_like(values[0]), values, reverse=True)[1]


def generalised(reward: Array, value: Array, *, discount: float, gae_lambda: float) -> PerStep:
    """The advantages of GAE (Schulman et al. 2016, arXiv:1506.02438).

    The value after the last step is 0: an episode that ran out of time is not bootstrapped, as in
    the codes of TRPO and MAML, whose returns are those of a finite horizon. A `gae_lambda` of 1
    gives the return minus the value, 0 the error of one step.

    Raises:
        InputError: if the shapes of reward and value differ.
    """
    if reward.shape != value.shape:
        raise InputError(
            f"rewards {list(reward.shape)} and values {list(value.shape)} differ in shape: both are"
            " [steps, n]"
        )
    after = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    return discounted(reward + discount * after - value, discount * gae_lambda)


def features(obs: Float[Array, "steps n f"]) -> Float[Array, "steps n 2*f+4"]:
    """Those of the linear baseline, of observations.

    Observations and their squares, time (in hundreds of steps), its square and its cube, and 1
    (Duan et al. 2016, arXiv:1604.06778, section 4).
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
    """The values that a regression on `features` predicts for `target`, 0 after ends.

    Least squares over what `mask` counts, with `ridge` times the squared coefficients added. By QR
    of the features and not by their normal equations, whose condition is the square of it: powers
    of time are nearly dependent, and this is float32.
    """
    rows = features(obs) * mask[..., None]
    count = rows.shape[-1]
    tall = jnp.concatenate([rows.reshape(-1, count), math.sqrt(ridge) * jnp.eye(count)])
    right = jnp.concatenate([(target * mask).ravel(), jnp.zeros(count)])
    q, r = jnp.linalg.qr(tall)
    return rows @ solve_triangular(r, right @ q)


def advantages(played: Trajectories, *, discount: float, gae_lambda: float) -> PerStep:
    """GAE over a linear baseline that is fitted to these same trajectories.

    With mean 0 and deviation 1 over the steps that count, and 0 after the ends.
    """
    returns = discounted(played.reward, discount)
    value = linear_baseline(played.obs, returns, played.mask)
    raw = generalised(played.reward, value, discount=discount, gae_lambda=gae_lambda)
    count = jnp.sum(played.mask)
    centered = (raw - jnp.sum(raw * played.mask) / count) * played.mask
    return centered / (jnp.sqrt(jnp.sum(jnp.square(centered)) / count) + 1e-8)
