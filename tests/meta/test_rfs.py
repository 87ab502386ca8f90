"""RFS-simple: scikit-learn on the same features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta.rfs import rfs
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch


def test_a_task_is_scikit_learns_regression_on_features_of_length_1(key):
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(12, 4))), np.arange(12) % 3
    weight, asked = np.float32(rng.uniform(0.5, 4, size=12)), np.float32(rng.normal(size=(9, 4)))
    net = mlp((6,))
    learner = rfs(net, cross_entropy, classes=7, ways=4)
    params = learner.init(key, x)
    adapted = jax.jit(learner.adapt)(key, params, Batch(x, y, weight))
    given, test = (
        features / np.linalg.norm(features, axis=1, keepdims=True)
        for features in (np.asarray(net.apply(params.features, each)) for each in (x, asked))
    )
    expected = LogisticRegression(C=1, tol=1e-9).fit(given, y, weight).predict_proba(test)
    found = jax.nn.softmax(learner.predict(adapted, asked))
    np.testing.assert_allclose(found[:, :3], expected, atol=1e-4)
    assert not found[:, 3].any()


def test_a_feature_of_zeros_has_a_finite_gradient(key):
    """A dead layer gives such features. Their length has no derivative there."""
    learner = rfs(mlp((2,)), cross_entropy, classes=2, ways=2)
    x = jnp.zeros((2, 3))
    params = learner.init(key, x)
    adapted = learner.adapt(key, params, Batch(x, jnp.array([0, 1])))
    slope = jax.grad(lambda features: learner.predict(adapted._replace(features=features), x).sum())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope(params.features)))


def test_no_penalty_is_refused():
    with pytest.raises(InputError, match="`l2=0`: without a penalty there is no minimum"):
        rfs(mlp((2,)), cross_entropy, classes=2, ways=2, l2=0)
