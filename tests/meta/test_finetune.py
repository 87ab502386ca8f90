"""Inputs of several arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.data.episodes import few_shot
from jaxdl.losses import cross_entropy
from jaxdl.meta.finetune import finetune
from jaxdl.types import Model


def test_features_of_a_dict_are_fine_tuned(key):
    """Tokens decide the class: a table of embeddings, beside a column that says nothing."""
    words = Model(
        lambda key, x: jax.random.normal(key, (6, 8)),
        lambda params, x, *, key=None, weight=None: jnp.concatenate(
            [params[x["token"]], x["noise"][:, None]], axis=1
        ),
    )
    learner = finetune(words, cross_entropy, classes=6, ways=3, tx=optax.sgd(0.5), steps=20)
    token = np.repeat(np.arange(6), 5)
    x = {"token": token, "noise": np.random.default_rng(0).normal(size=30)}
    support, query = few_shot(x, token, ways=3, shots=2, queries=3)(key)
    params = learner.init(key, support.x)
    assert params.kernel.shape == (9, 6)
    adapted = jax.jit(learner.adapt)(key, params, support)
    np.testing.assert_array_equal(learner.predict(adapted, query.x).argmax(axis=1), query.y)
