"""Meta-Curvature against MAML, Kronecker products, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.curvature import Curvature, curved, identities, scale_by_curvature
from jaxdl.meta.inner import descend
from jaxdl.meta.maml import maml
from jaxdl.meta.meta_curvature import WithCurvature, meta_curvature
from jaxdl.types import Batch, Episode, Model

RATE = 0.1
CURVED = Model(
    lambda key, x: {
        "w": jax.random.normal(key, (3, 4)),
        "b": jnp.linspace(-0.5, 0.5, 4),
        "v": jax.random.normal(key, (4, 1)),
    },
    lambda params, x, *, key=None, weight=None: (
        jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"]
    ),
)


@pytest.fixture
def double():
    """An episode and parameters in float64, inside whose context a test runs."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        parts = [Batch(rng.normal(size=(5, 3)), rng.normal(size=(5, 1))) for _ in range(2)]
        start = CURVED.init(jax.random.key(0), None)
        yield jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (Episode(*parts), start))


def close(found, expected):
    def check(a, b):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9)

    jax.tree.map(check, found, expected)


def test_a_kernel_is_multiplied_by_the_kronecker_product_of_its_matrices():
    """None of them symmetric: of a filter of 2 x 3 places, 2 inputs and 4 outputs."""
    rng = np.random.default_rng(0)
    by = Curvature(*(rng.normal(size=(n, n)) for n in (6, 2, 4)))
    grad = rng.normal(size=(2, 3, 2, 4))
    expected = np.kron(by.filter, np.kron(by.inputs, by.outputs)) @ grad.ravel()
    with jax.enable_x64(True):
        found = curved([jax.tree.map(jnp.asarray, by)], [jnp.asarray(grad)])[0]
    np.testing.assert_allclose(found, expected.reshape(grad.shape), rtol=1e-12)


def test_a_dense_kernel_is_multiplied_from_both_sides_and_a_bias_number_by_number():
    rng = np.random.default_rng(1)
    by = Curvature(np.array([[2.0]]), rng.normal(size=(3, 3)), rng.normal(size=(4, 4)))
    grads = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    with jax.enable_x64(True):
        found = curved({"w": jax.tree.map(jnp.asarray, by), "b": jnp.arange(4.0)}, grads)
    np.testing.assert_allclose(found["w"], 2 * by.inputs @ grads["w"] @ by.outputs.T, rtol=1e-12)
    np.testing.assert_allclose(found["b"], np.arange(4) * grads["b"], rtol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [estimators.exact, estimators.first_order, estimators.mixed_mode],
    ids=lambda e: e.__name__,
)
def test_at_the_identity_it_is_maml(estimator, double, key):
    episode, start = double
    options = {"steps": 2, "estimator": estimator}
    ours = meta_curvature(CURVED, mean_squared_error, inner_lr=RATE, **options)
    peer = maml(CURVED, mean_squared_error, tx=optax.sgd(RATE), **options)
    params = WithCurvature(start, identities(start))
    assert jax.tree.structure(params) == jax.tree.structure(ours.init(key, episode.support.x))
    both = (ours, params), (peer, start)
    found, expected = (jax.jit(each.grad)(key, 0, given, episode)[0] for each, given in both)
    close(found.start, expected)
    support = episode.support
    close(*(jax.jit(each.adapt, static_argnums=3)(key, given, support, 3) for each, given in both))


def test_finite_differences_of_the_matrices_agree(double, key):
    episode, start = double
    learner = meta_curvature(CURVED, mean_squared_error, inner_lr=RATE, steps=2)
    rng = np.random.default_rng(2)
    noisy = jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), identities(start))
    params = WithCurvature(start, noisy)

    @jax.jit
    def loss(params):
        adapted = learner.adapt(key, params, episode.support)
        return jnp.mean((learner.predict(adapted, episode.query.x) - episode.query.y) ** 2)

    grads = jax.jit(learner.grad)(key, 0, params, episode)[0].curvature
    leaves, structure = jax.tree.flatten(noisy)
    for i, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        for place in np.ndindex(leaf.shape):

            def moved(by, i=i, place=place, leaf=leaf):
                at = [*leaves[:i], leaf.at[place].add(by), *leaves[i + 1 :]]
                return loss(params._replace(curvature=jax.tree.unflatten(structure, at)))

            slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
            np.testing.assert_allclose(grad[place], slope, rtol=1e-6, atol=1e-10)


def test_a_curvature_that_nobody_gives_and_steps_below_zero_are_refused():
    def loss(w, key):
        return jnp.sum(w**2), {}

    with pytest.raises(InputError, match="scale_by_curvature needs rates"):
        descend(loss, jnp.ones(2), scale_by_curvature(0.1), steps=1)
    with pytest.raises(InputError, match=r"steps=-1`: choose"):
        meta_curvature(CURVED, mean_squared_error, inner_lr=0.1, steps=-1)
