"""ANIL (Raghu et al. 2020, arXiv:1909.09157) on pictures of one's own: only the head adapts."""

from typing import Any

import jax
import numpy as np
import optax

import jaxdl


def pictures(ways: int) -> jaxdl.Sampler:
    rng = np.random.default_rng(0)
    patterns, labels = rng.uniform(0, 255, (30, 8, 8, 1)), np.repeat(np.arange(30), 20)
    noisy = patterns[labels] + rng.normal(0, 200, (600, 8, 8, 1))
    return jaxdl.few_shot(
        noisy.clip(0, 255).astype(np.uint8), labels, ways=ways, shots=2, queries=4
    )


def anil(body: jaxdl.Model, head: jaxdl.Model, loss: jaxdl.LossFn, *, lr: float, steps: int) -> Any:
    inner, default = jaxdl.objective(head, loss), steps

    def init(key: jax.Array, x: Any) -> Any:
        params = body.init(key, x)
        return params, head.init(key, body.apply(params, x))

    def adapt(key: jax.Array, params: Any, support: Any, steps: int | None = None) -> Any:
        features = support._replace(x=body.apply(params[0], support.x))
        depth = default if steps is None else steps
        return params[0], jaxdl.descend(inner, params[1], optax.sgd(lr), features, steps=depth)[0]

    def predict(adapted: Any, x: Any, *, key: Any = None, weight: Any = None) -> Any:
        return head.apply(adapted[1], body.apply(adapted[0], x))

    return jaxdl.MetaLearner(init, adapt, predict, jaxdl.through_adaptation(adapt, predict, loss))


def main(steps: int = 400) -> dict[str, jaxdl.Interval]:
    sample, loss, key = pictures(ways=5), jaxdl.cross_entropy, jax.random.key(0)
    learner = anil(jaxdl.mlp((64,)), jaxdl.mlp((5,)), loss, lr=0.3, steps=5)
    fitted = jaxdl.fit(learner, sample, tx=optax.adam(1e-3), steps=steps, tasks=8, key=key)
    return jaxdl.score(learner, fitted.params, loss, sample, episodes=100, key=key)
