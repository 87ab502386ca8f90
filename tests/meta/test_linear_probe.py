"""The linear probe: gradient descent by NumPy, and its limit by scikit-learn."""

import jax
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

from jaxdl.losses import cross_entropy
from jaxdl.meta.linear_probe import linear_probe
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch

NET = mlp((6,))
RNG = np.random.default_rng(0)
X, ASKED = np.float32(RNG.normal(size=(12, 4))), np.float32(RNG.normal(size=(9, 4)))
Y, WEIGHT = np.arange(12) % 3, np.float32(RNG.uniform(0.5, 4, size=12))


def adapted_by(tx, steps, key):
    learner = linear_probe(NET, cross_entropy, classes=7, ways=3, tx=tx, steps=steps)
    params = learner.init(key, X)
    adapted = jax.jit(learner.adapt)(key, params, Batch(X, Y, WEIGHT))
    jax.tree.map(np.testing.assert_array_equal, adapted.features, params.features)  # frozen
    features = [np.asarray(NET.apply(params.features, each), float) for each in (X, ASKED)]
    return jax.nn.softmax(learner.predict(adapted, ASKED)), *features


def test_three_steps_by_numpy(key):
    found, given, asked = adapted_by(optax.sgd(0.5), 3, key)
    given, asked = (np.concatenate([each, np.ones((len(each), 1))], 1) for each in (given, asked))
    w, share = np.zeros((7, 3)), (WEIGHT / WEIGHT.sum())[:, None]

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    for _ in range(3):
        w = w - 0.5 * given.T @ (share * (softmax(given @ w) - np.eye(3)[Y]))
    np.testing.assert_allclose(found, softmax(asked @ w), rtol=1e-4)


def test_many_steps_with_weight_decay_are_logistic_regression(key):
    """Weight decay acts on the kernel here. scikit-learn has the sum of losses and no mean."""
    decay = optax.add_decayed_weights(0.1, mask=lambda head: head._replace(kernel=True, bias=False))
    found, given, asked = adapted_by(optax.chain(decay, optax.sgd(0.2)), 2000, key)
    model = LogisticRegression(C=1 / (0.1 * WEIGHT.sum()), tol=1e-9).fit(given, Y, WEIGHT)
    np.testing.assert_allclose(found, model.predict_proba(asked), atol=1e-3)
