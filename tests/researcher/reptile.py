"""Reptile (Nichol, Achiam, Schulman 2018, arXiv:1803.02999): towards where plain training ends."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxdl


def reptile(
    model: jaxdl.Model,
    loss: jaxdl.LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
) -> jaxdl.MetaLearner:
    """The meta-gradient is the way back from the adapted parameters, and no derivative."""
    inner_loss, default_steps = jaxdl.objective(model, loss), steps

    def adapt(key: jax.Array, params: Any, support: Any, steps: int | None = None) -> Any:
        depth = default_steps if steps is None else steps
        return jaxdl.descend(inner_loss, params, tx, support, steps=depth)[0]

    def predict(
        adapted: Any, x: Any, *, key: jax.Array | None = None, weight: jax.Array | None = None
    ) -> Any:
        return model.apply(adapted, x, key=key, weight=weight)

    def grad(
        key: jax.Array, step: jax.Array, params: Any, batch: jaxdl.Episode
    ) -> tuple[Any, dict[str, jax.Array]]:
        adapted, query = adapt(key, params, batch.support), batch.query
        _, metrics = loss(predict(adapted, query.x), query.y, query.weight)
        return jax.tree.map(jnp.subtract, params, adapted), metrics

    return jaxdl.MetaLearner(model.init, adapt, predict, grad)
