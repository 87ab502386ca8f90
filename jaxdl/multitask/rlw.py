"""RLW, random loss weighting (Lin et al. 2022, arXiv:2111.10603)."""

import jax

from jaxdl.multitask.combine import LossWeighting, PerTask, needs_key, weigh_losses
from jaxdl.types import Key, PyTree


def rlw() -> LossWeighting:
    """Weights that are the softmax of standard normals, drawn anew at each step with `key`.

    In expectation it equals `equal`. It is a baseline for methods whose weights change.
    """

    def weigh(state: PyTree, losses: PerTask, key: Key | None) -> tuple[PerTask, PyTree]:
        drawn = jax.random.normal(needs_key(key, "rlw"), losses.shape, losses.dtype)
        return jax.nn.softmax(drawn), state

    return weigh_losses(weigh)
