"""Inputs of several arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.data.episodes import few_shot
from jaxdl.data.examples import examples
from jaxdl.losses import cross_entropy
from jaxdl.meta.finetune import finetune
from jaxdl.train.streams import task_stream
from jaxdl.types import Model

TOKEN = np.repeat(np.arange(6), 5)
X = {"token": TOKEN, "noise": np.random.default_rng(0).normal(size=30)}


def words(width: int) -> Model:
    """Embeddings of tokens, beside a column that says nothing."""
    return Model(
        lambda key, x: jax.random.normal(key, (6, width)),
        lambda params, x, *, key=None, weight=None: jnp.concatenate(
            [params[x["token"]], x["noise"][:, None]], axis=1
        ),
    )


def test_features_of_a_dict_are_fine_tuned(key):
    """Tokens decide the class."""
    learner = finetune(words(8), cross_entropy, classes=6, ways=3, tx=optax.sgd(0.5), steps=20)
    support, query = few_shot(X, TOKEN, ways=3, shots=2, queries=3)(key)
    params = learner.init(key, support.x)
    assert params.kernel.shape == (9, 6)
    adapted = jax.jit(learner.adapt)(key, params, support)
    np.testing.assert_array_equal(learner.predict(adapted, query.x).argmax(axis=1), query.y)


def test_features_of_a_dict_are_trained_on_labelled_examples(key):
    learner = finetune(words(4), cross_entropy, classes=6, ways=3, tx=optax.sgd(0.1), steps=1)
    batch = task_stream(examples(X, TOKEN), 32)(key, 0)
    params = learner.init(key, batch.x)

    @jax.jit
    def descend(params, batch):
        def once(_, params):
            grads, _ = learner.grad(key, jnp.int32(0), params, batch)
            return jax.tree.map(lambda leaf, grad: leaf - grad, params, grads)

        return jax.lax.fori_loop(0, 100, once, params)

    adapted = descend(params, batch)
    _, metrics = jax.jit(learner.grad)(key, jnp.int32(0), adapted, batch)
    assert float(metrics["accuracy"]) == 1.0
