"""Equal weights: the gradient of the mean loss (linear scalarisation, Kurin et al., 2201.04122)."""

import jax.numpy as jnp

from jaxdl.multitask.combine import LossWeighting, weigh_losses


def equal() -> LossWeighting:
    """The mean over tasks. It is the baseline for other methods; tune it as well as them."""
    return weigh_losses(lambda state, losses, key: (jnp.full_like(losses, 1 / len(losses)), state))
