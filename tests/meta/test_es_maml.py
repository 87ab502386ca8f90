"""ES-MAML against MAML, and inner steps that have no derivative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.es_maml import es_maml
from jaxdl.meta.evolution import es_estimator, es_query_grad
from jaxdl.meta.maml import maml
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model
from tests.meta.test_evolution import MANY, assert_mean, flat

LINEAR = Model(
    lambda key, x: jnp.array([[0.5], [-1.0]]), lambda w, x, *, key=None, weight=None: x @ w
)
WEIGHTS = LINEAR.init(None, None)


@pytest.fixture
def episode():
    rng = np.random.default_rng(0)
    parts = [Batch(rng.normal(size=(4, 2)), rng.normal(size=(4, 1))) for _ in range(2)]
    return jax.tree.map(jnp.float32, Episode(*parts))


def over_keys(function, key):
    return jax.jit(jax.vmap(function))(jax.random.split(key, MANY))


def test_its_mean_is_the_meta_gradient_of_maml_where_the_query_loss_is_quadratic(episode, key):
    """As for a linear model: the second-order part of the meta-gradient is there."""
    options = {"tx": optax.sgd(0.3), "steps": 1}
    peer = maml(LINEAR, mean_squared_error, **options)
    ours = es_maml(LINEAR, mean_squared_error, population=1, sigma=0.5, **options)
    expected, _ = jax.jit(peer.grad)(key, 0, WEIGHTS, episode)
    assert_mean(over_keys(lambda key: ours.grad(key, 0, WEIGHTS, episode)[0], key), expected)
    adapted = [each.adapt(key, WEIGHTS, episode.support, 3) for each in (ours, peer)]
    np.testing.assert_allclose(*adapted, rtol=1e-6)


def test_inner_gradients_may_be_estimates_too(episode, key):
    """One step is linear in them, so its mean is MAML's. And they switch no dropout on."""

    def apply(w, x, *, key=None, weight=None):
        return x @ w * (1 if key is None else jnp.nan)

    net, options = LINEAR._replace(apply=apply), {"tx": optax.sgd(0.3), "steps": 1}
    estimator = es_estimator(population=2, sigma=0.5)
    ours = es_maml(net, mean_squared_error, estimator=estimator, **options)
    expected = maml(LINEAR, mean_squared_error, **options).adapt(key, WEIGHTS, episode.support)
    found = over_keys(lambda key: ours.adapt(key, WEIGHTS, episode.support), key)
    assert_mean(found, expected)
    steps = ours.adapt(key, jnp.zeros((2, 1)), episode.support, 2)
    assert np.isfinite(steps).all()


def shortened(updates, state, params=None):
    """A step whose length is found by a loop, which has no reverse derivative."""
    del params

    def shorten(leaf):
        return -lax.while_loop(lambda s: jnp.max(jnp.abs(s)) > 0.2, lambda s: s / 2, leaf)

    return jax.tree.map(shorten, updates), state


def test_nothing_is_differentiated_through_the_steps(episode, key):
    tx = optax.GradientTransformation(lambda params: optax.EmptyState(), shortened)
    learner = es_maml(LINEAR, mean_squared_error, tx=tx, steps=2, population=50)
    grads, metrics = jax.jit(learner.grad)(key, 0, WEIGHTS, episode)
    assert np.isfinite(metrics["loss"])
    assert np.all(np.abs(grads) > 1e-3)
    derivative = through_adaptation(learner.adapt, learner.predict, mean_squared_error)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        derivative(key, 0, WEIGHTS, episode)


def test_the_two_of_a_pair_are_adapted_by_the_same_key(episode, key):
    """Else their masks would differ, and noise of that size would be divided by sigma."""

    def apply(w, x, *, key=None, weight=None):
        noise = 0 if key is None else 100 * jax.random.normal(key)
        return noise + 0 * (x @ w)

    make = partial(es_maml, LINEAR._replace(apply=apply), mean_squared_error, tx=optax.sgd(0.1))
    learner = make(steps=1, inner_dropout=True, population=2)
    grads, metrics = jax.jit(learner.grad)(key, 0, WEIGHTS, episode)
    assert metrics["loss"] > 1
    np.testing.assert_allclose(grads, 0, atol=1e-6)


@pytest.mark.slow
def test_statistics_of_the_support_set_keep_the_estimate(episode, key):
    """It is made anew: neither the derivative, nor that of the queries' own statistics."""
    net, options = mlp((3, 1), norm="batch"), {"population": 3, "sigma": 0.3}
    learner = es_maml(net, mean_squared_error, tx=optax.sgd(0.1), steps=1, **options)
    inductive = by_support_statistics(learner, mean_squared_error)
    params = jax.jit(learner.init)(key, episode.support.x)
    found, expected, plain = (
        flat(jax.jit(grad)(key, 0, params, episode)[0])
        for grad in (
            inductive.grad,
            es_query_grad(inductive.adapt, inductive.predict, mean_squared_error, **options),
            learner.grad,
        )
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(found, plain)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match=r"steps=-1`: choose 0 or more inner steps"):
        es_maml(LINEAR, mean_squared_error, tx=optax.sgd(0.1), steps=-1)
    with pytest.raises(InputError, match=r"population=0`"):
        es_maml(LINEAR, mean_squared_error, tx=optax.sgd(0.1), steps=1, population=0)
