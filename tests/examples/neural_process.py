"""A conditional neural process (Garnelo et al. 2018, arXiv:1807.01613) on waves of two sines."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxdl


def wave(key: jax.Array) -> jaxdl.Episode:
    x = jax.random.uniform(key, (20, 1), minval=-2.0, maxval=2.0)
    phases = jax.random.normal(jax.random.fold_in(key, 1), (1, 2))
    y = jnp.sin(x * jnp.array([[1.0, 3.0]]) + phases).sum(1)
    return jaxdl.Episode(jaxdl.Batch(x[:10], y[:10]), jaxdl.Batch(x[10:], y[10:]))


def nll(prediction: Any, target: Any, weight: Any = None) -> tuple[jax.Array, Any]:
    mean, scale = prediction[:, 0], 0.1 + 0.9 * jax.nn.softplus(prediction[:, 1])
    loss = jaxdl.weighted_mean(-jax.scipy.stats.norm.logpdf(target, mean, scale), weight)
    return loss, {"loss": loss}


def neural_process(encoder: jaxdl.Model, decoder: jaxdl.Model, width: int) -> jaxdl.MetaLearner:
    def init(key: jax.Array, x: Any) -> Any:
        return encoder.init(key, jnp.ones((1, 2))), decoder.init(key, jnp.ones((1, width + 1)))

    def adapt(key: jax.Array, params: Any, support: Any, steps: int | None = None) -> Any:
        points = jnp.concatenate([support.x, support.y[:, None]], axis=1)
        return params[1], encoder.apply(params[0], points).mean(axis=0, keepdims=True)

    def predict(adapted: Any, x: Any, *, key: Any = None, weight: Any = None) -> Any:
        code = jnp.broadcast_to(adapted[1], (len(x), width))
        return decoder.apply(adapted[0], jnp.concatenate([code, x], axis=1))

    return jaxdl.MetaLearner(init, adapt, predict, jaxdl.through_adaptation(adapt, predict, nll))


def main(steps: int = 1000) -> dict[str, jaxdl.Interval]:
    learner = neural_process(jaxdl.mlp((64, 32)), jaxdl.mlp((64, 2)), 32)
    tx, key = optax.adam(3e-3), jax.random.key(0)
    fitted = jaxdl.fit(learner, wave, tx=tx, steps=steps, tasks=16, key=key)
    return jaxdl.score(learner, fitted.params, nll, wave, episodes=100, key=key)
