"""Policies over continuous actions: a normal distribution with a diagonal covariance."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.types import Array, Key, Model, Params, Weight

LEAST_STD = 1e-6
"""The smallest standard deviation of a policy."""


class Gaussian(NamedTuple):
    """Normal distributions of independent coordinates, `mean` and `log_std` `[..., actions]`."""

    mean: Float[Array, "*n actions"]
    log_std: Float[Array, "*n actions"]

    def sample(self, key: Key) -> Float[Array, "*n actions"]:
        """One draw from each distribution."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob(self, action: Float[Array, "*n actions"]) -> Float[Array, "*n"]:
        """The log density at `action`."""
        scaled = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(jnp.square(scaled) / 2 + self.log_std + math.log(2 * math.pi) / 2, axis=-1)


def kl_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "*n"]:
    """KL(p || q) in nats."""
    ratio = jnp.exp(2 * (p.log_std - q.log_std))
    apart = jnp.square((p.mean - q.mean) * jnp.exp(-q.log_std))
    return jnp.sum((ratio + apart - 1) / 2 + q.log_std - p.log_std, axis=-1)


def gaussian_policy(net: Model, *, actions: int, std: float = 1.0) -> Model:
    """A policy whose mean is `net` of the observation. Its deviation is a parameter.

    It is a `Model` from observations `[..., features]` to a `Gaussian` `[..., actions]`. `net` maps
    `[n, features]` to `[n, actions]`. The deviation starts at `std`, and does not depend on the
    observation, as in TRPO and MAML.

    Raises:
        InputError: if `std` is not above 0.
    """
    if not std > 0:
        raise InputError(f"`std={std}` is a standard deviation. Choose more than 0")

    check_model(net)

    def init(key: Key, x: Float[Array, "... features"]) -> Params:
        return {
            "net": net.init(key, x.reshape(-1, x.shape[-1])),
            "log_std": jnp.full(actions, math.log(std), float),
        }

    def apply(
        params: Params,
        x: Float[Array, " n ... features"],
        *,
        key: Key | None = None,
        weight: Weight | None = None,
    ) -> Gaussian:
        if weight is not None:  # the weight of an episode, for example, for each of its steps
            weight = jnp.broadcast_to(
                weight.reshape((-1,) + (1,) * (x.ndim - 2)), x.shape[:-1]
            ).ravel()
        rows = net.apply(params["net"], x.reshape(-1, x.shape[-1]), key=key, weight=weight)
        mean = rows.reshape(*x.shape[:-1], actions)
        log_std = jnp.maximum(params["log_std"], math.log(LEAST_STD))
        return Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))

    return Model(init, apply)
