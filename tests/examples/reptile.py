"""Reptile (Nichol et al. 2018, arXiv:1803.02999) on parabolas through the origin."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxdl


def parabola(key: jax.Array) -> jaxdl.Episode:
    slope_key, bend_key, x_key = jax.random.split(key, 3)
    x = jax.random.uniform(x_key, (20, 1), minval=-1.0)
    y = jax.random.normal(slope_key) * x + jax.random.normal(bend_key) * x**2
    return jaxdl.Episode(jaxdl.Batch(x[:10], y[:10]), jaxdl.Batch(x[10:], y[10:]))


def reptile(model: jaxdl.Model, loss: jaxdl.LossFn, *, lr: float, steps: int) -> jaxdl.MetaLearner:
    inner, default = jaxdl.objective(model, loss), steps

    def adapt(key: jax.Array, params: Any, support: Any, steps: int | None = None) -> Any:
        depth = default if steps is None else steps
        return jaxdl.descend(inner, params, optax.sgd(lr), support, steps=depth)[0]

    def grad(key: jax.Array, step: Any, params: Any, batch: jaxdl.Episode) -> tuple[Any, Any]:
        """The way that adaptation takes, backwards: there is no loss whose gradient it is."""
        adapted = adapt(key, params, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *batch))
        _, metrics = loss(model.apply(adapted, batch.query.x), batch.query.y)
        return jax.tree.map(jnp.subtract, params, adapted), metrics

    return jaxdl.MetaLearner(model.init, adapt, model.apply, grad)


def main(steps: int = 1000) -> dict[str, jaxdl.Interval]:
    loss, key = jaxdl.mean_squared_error, jax.random.key(0)
    learner = reptile(jaxdl.mlp((40, 1)), loss, lr=0.05, steps=3)
    fitted = jaxdl.fit(learner, parabola, tx=optax.sgd(1.0), steps=steps, tasks=4, key=key)
    return jaxdl.score(learner, fitted.params, loss, parabola, episodes=100, key=key)
