"""Pairs by a module of known scores, the paper's loss by NumPy, and maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta.relation_error import relation_error
from jaxdl.meta.relationnet import relationnet
from jaxdl.types import Batch, Episode, Model

IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
SUPPORT = Batch(
    jnp.array([[3.0, 0.0], [5.0, 0.0], [0.0, 8.0], [9.0, 9.0]]),
    jnp.array([0, 0, 1, 2]),
    jnp.array([1.0, 3.0, 0.5, 0.0]),  # the third class has no example that counts
)
QUERY = Batch(jnp.array([[0.1, 0.1], [4.0, 1.0], [-2.0, 3.0]]), jnp.array([0, 0, 1]))


def test_each_pair_of_class_and_query_has_the_score_of_the_module(key):
    """A module that tells which half is the class, which number it is, and the scale of each."""
    factors = jnp.array([[1.0], [10.0], [100.0], [1000.0]])
    module = Model(
        lambda key, x: factors, lambda params, x, *, key=None, weight=None: x**2 @ params
    )
    learner = relationnet(IDENTITY, relation_error, ways=4, module=module)
    adapted = learner.adapt(key, learner.init(key, SUPPORT.x), SUPPORT)
    found = learner.predict(adapted, QUERY.x)
    means, x = np.array([[4.5, 0.0], [0.0, 8.0]]), np.asarray(QUERY.x)
    expected = (means**2 @ [1, 10])[None] + (x**2 @ [100, 1000])[:, None]
    np.testing.assert_allclose(found[:, :2], expected, rtol=1e-5)
    assert np.isneginf(found[:, 2:]).all()


def test_the_papers_loss_by_numpy():
    rng = np.random.default_rng(0)
    prediction, target, weight = rng.normal(size=(4, 3)), np.array([0, 2, 1, 7]), [1.0, 2.0, 0.5, 0]
    prediction[1, 0], prediction[3] = -np.inf, np.nan
    errors = (1 / (1 + np.exp(-prediction[:3])) - np.eye(3)[target[:3]]) ** 2
    loss, metrics = relation_error(*map(jnp.asarray, (prediction, target, weight)))
    np.testing.assert_allclose(loss, np.average(errors.mean(axis=1), weights=weight[:3]), rtol=1e-6)
    grads, _ = jax.grad(relation_error, has_aux=True)(
        *map(jnp.asarray, (prediction, target, weight))
    )
    assert np.isfinite(grads).all()
    right = prediction[:3].argmax(axis=1) == target[:3]
    np.testing.assert_allclose(metrics["accuracy"], np.average(right, weights=weight[:3]))


MAPS = Model(
    lambda key, x: jnp.sin(jnp.arange(2.0 * 2 * 2 * 3)).reshape(2, -1).astype(x.dtype),
    lambda params, x, *, key=None, weight=None: jnp.tanh(x @ params).reshape(-1, 2, 2, 3),
)


def test_absent_classes_and_padded_queries_do_not_reach_the_norm_of_the_module(key):
    learners = [relationnet(MAPS, cross_entropy, ways=ways) for ways in (2, 4)]
    params = learners[0].init(key, QUERY.x)
    padded = Batch(
        jnp.concatenate([QUERY.x, jnp.full((1, 2), 50.0)]), jnp.array([0, 0, 1, 0]),
        jnp.array([1.0, 1.0, 1.0, 0.0]),
    )  # fmt: skip
    given = Episode(SUPPORT, QUERY), Episode(SUPPORT, padded)
    two, four = (
        jax.jit(learner.grad)(key, jnp.int32(0), params, episode)
        for learner, episode in zip(learners, given, strict=True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), four, two)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(two[0].module["Conv_0"]))


@pytest.mark.parametrize(
    "loss",
    [relation_error, pytest.param(cross_entropy, marks=pytest.mark.slow)],
    ids=["squared", "cross-entropy"],
)
def test_the_meta_gradient_is_that_of_finite_differences(loss, key):
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, Episode(SUPPORT, QUERY))
        given = jax.tree.map(lambda a: a.astype(float) if a.dtype == "float32" else a, given)
        learner = relationnet(MAPS, loss, ways=3)
        to_float64 = lambda leaf: leaf.astype(float)  # noqa: E731
        params = jax.tree.map(to_float64, learner.init(key, given.query.x))
        grads, _ = jax.jit(learner.grad)(key, jnp.int32(0), params, given)
        direction = jax.tree.map(jnp.cos, params)

        @jax.jit
        def value(h):
            moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
            adapted = learner.adapt(key, moved, given.support)
            return loss(learner.predict(adapted, given.query.x), given.query.y)[0]

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
        np.testing.assert_allclose(along, slope, rtol=1e-6)
        assert abs(slope) > 1e-4
