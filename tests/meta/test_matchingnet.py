"""Attention by NumPy, by hand, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.losses import cross_entropy
from jaxdl.meta.matchingnet import matchingnet
from jaxdl.types import Batch, Episode, Model

LINEAR = Model(
    lambda key, x: jnp.eye(x.shape[1], dtype=x.dtype),
    lambda params, x, *, key=None, weight=None: x @ params,
)
SUPPORT = Batch(
    np.array([[3.0, 0.0], [5.0, 1.0], [0.0, 8.0], [9.0, 9.0], [0.0, 0.0]]),
    np.array([0, 0, 1, 2, 1]),
    np.array([1.0, 3.0, 0.5, 0.0, 2.0]),  # the third class has no example that counts
)
QUERY = Batch(np.array([[0.1, 0.1], [-4.0, 1.0], [0.0, 0.0]]), np.array([0, 1, 0]))


def logits(learner, key, support=SUPPORT):
    support = jax.tree.map(jnp.asarray, support)
    params = learner.init(key, support.x)
    return learner.predict(learner.adapt(key, params, support), jnp.asarray(QUERY.x))


def test_probabilities_are_the_softmax_of_cosines_summed_over_a_class(key):
    with jax.enable_x64(True):
        found = logits(matchingnet(LINEAR, cross_entropy, ways=4), key)
    lengths = [np.linalg.norm(x, axis=1) for x in (QUERY.x, SUPPORT.x)]
    lengths = [np.where(length > 0, length, 1) for length in lengths]  # zeros have cosine 0
    attention = np.exp(QUERY.x @ SUPPORT.x.T / np.outer(*lengths)) * SUPPORT.weight
    attention /= attention.sum(axis=1, keepdims=True)
    expected = attention @ np.eye(3)[SUPPORT.y]
    np.testing.assert_allclose(found[:, :2], np.log(expected[:, :2]), rtol=1e-9)
    assert np.isneginf(found[:, 2:]).all()
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-9)


def test_the_largest_probability_of_five_classes_is_that_of_the_docstring(key):
    """A query that is its class, and opposite to the only example of each other class."""
    x = jnp.asarray([[1.0, 0.0]] + [[-2.0, 0.0]] * 4)
    learner = matchingnet(LINEAR, cross_entropy, ways=5)
    adapted = learner.adapt(key, learner.init(key, x), Batch(x, jnp.arange(5)))
    np.testing.assert_allclose(
        jnp.exp(learner.predict(adapted, x[:1]))[0, 0], np.e / (np.e + 4 / np.e), rtol=1e-6
    )


def test_the_scale_of_weights_means_nothing(key):
    learner = matchingnet(LINEAR, cross_entropy, ways=2)
    scaled = SUPPORT._replace(weight=SUPPORT.weight * 1e-12)
    np.testing.assert_allclose(logits(learner, key, scaled), logits(learner, key), rtol=1e-4)


def test_the_meta_gradient_is_that_of_finite_differences_with_absent_classes(key):
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, Episode(SUPPORT, QUERY))
        learner = matchingnet(LINEAR, cross_entropy, ways=4)
        params, direction = learner.init(key, given.query.x), jnp.asarray([[1.0, 2.0], [-0.5, 0.7]])
        grads, _ = jax.jit(learner.grad)(key, jnp.int32(0), params, given)

        @jax.jit
        def value(h):
            adapted = learner.adapt(key, params + h * direction, given.support)
            return cross_entropy(learner.predict(adapted, given.query.x), given.query.y)[0]

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        np.testing.assert_allclose(jnp.vdot(grads, direction), slope, rtol=1e-7)
        assert abs(slope) > 1e-3
