"""Equal weights: the gradient of the mean loss (linear scalarisation, Kurin et al., 2201.04122)."""

import jax.numpy as jnp

from jaxdl.multitask.combine import LossWeighting, weigh_losses


def equal() -> LossWeighting:
    """The mean over tasks; what every other method must beat, tuned as well as they are."""
    return weigh_losses(lambda state, losses, key: (jnp.full_like(losses, 1 / len(losses)), state))
