"""Logistic regression on the inputs: scikit-learn, with more pixels than rows and with fewer."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta.raw_logistic import raw_logistic
from jaxdl.types import Batch


@pytest.mark.parametrize("shape", [(4, 5, 2), (3,)], ids=["wide", "narrow"])
@pytest.mark.parametrize("l2", [1.0, 0.1])
def test_it_is_scikit_learns(shape, l2, key):
    rng = np.random.default_rng(0)
    x, asked = (np.float32(rng.normal(size=(n, *shape))) for n in (12, 9))
    y, weight = np.arange(12) % 3, np.float32(rng.uniform(0.5, 4, size=12))
    learner = raw_logistic(cross_entropy, ways=4, l2=l2)
    params = learner.init(key, x)
    adapted = jax.jit(learner.adapt)(key, params, Batch(x, y, weight))
    expected = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=10_000)
    expected.fit(np.float64(x).reshape(12, -1), y, weight)
    found = np.asarray(jax.nn.softmax(learner.predict(adapted, asked)))
    theirs = expected.predict_proba(asked.reshape(9, -1))
    np.testing.assert_allclose(found[:, :3], theirs, atol=1e-5)
    assert not found[:, 3].any()  # no example has this class


def test_equal_pictures_and_rows_of_zeros_are_solved(key):
    """They make the rows dependent, so that their span has directions without meaning."""
    x = np.zeros((5, 7), np.float32)
    x[:2, 3] = 1
    y = np.array([0, 0, 1, 1, 2])
    learner = raw_logistic(cross_entropy, ways=3)
    adapted = jax.jit(learner.adapt)(key, (), Batch(x, y))
    expected = LogisticRegression(C=1, tol=1e-9).fit(x, y).predict_proba(x)
    found = jax.nn.softmax(learner.predict(adapted, x))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_penalty_is_refused():
    with pytest.raises(InputError, match="`l2=0`: without a penalty there is no minimum"):
        raw_logistic(cross_entropy, ways=2, l2=0)
