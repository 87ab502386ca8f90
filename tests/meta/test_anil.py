"""ANIL is MAML whose inner optimiser leaves the features as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta import estimators
from jaxdl.meta.anil import anil
from jaxdl.meta.head import Headed, with_head
from jaxdl.meta.maml import maml
from jaxdl.types import Batch, Episode, Model

SGD, WAYS = optax.sgd(0.3), 2
CURVED = Model(
    lambda key, x: jax.random.normal(key, (x["a"].shape[1], 4)),
    lambda params, x, *, key=None, weight=None: jnp.tanh(x["a"] @ params).reshape(-1, 2, 2),
)
"""Features of inputs that are a dict, with two axes."""


def episode(seed=0):
    """Float64 inputs. The last row of the support set is padding."""
    rng = np.random.default_rng(seed)

    def batch(n, weight=None):
        return Batch({"a": rng.normal(size=(n, 3))}, rng.integers(0, WAYS, n), weight)

    return jax.tree.map(jnp.asarray, Episode(batch(5, np.array([1.0, 1, 2, 1, 0])), batch(6)))


def masked(features, head):
    """An optimiser for a `Headed` of which a part is frozen."""
    parts = {"learns": SGD, "rests": optax.set_to_zero()}
    return optax.partition(parts, Headed(features, head, head))


def assert_same(ours, peer, key, steps=None):
    """Adapted parameters and meta-gradients of two learners with the same parameters."""
    with jax.enable_x64(True):
        task = episode()
        params = jax.tree.map(lambda p: p.astype(float), ours.init(key, task.support.x))
        for name in ("adapt", "grad"):
            arguments = (
                (key, params, task.support, steps) if name == "adapt" else (key, 0, params, task)
            )
            found, expected = (
                jax.jit(getattr(each, name), static_argnums=3 if name == "adapt" else ())(
                    *arguments
                )
                for each in (ours, peer)
            )
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
                jax.tree.map(np.asarray, found),
                jax.tree.map(np.asarray, expected),
            )
        return jax.tree.map(np.asarray, (params, found[0]))


@pytest.mark.parametrize(
    "estimator", [estimators.exact, estimators.first_order], ids=lambda e: e.__name__
)
def test_it_is_maml_with_frozen_features(estimator, key):
    options = {"steps": 3, "estimator": estimator}
    ours = anil(CURVED, cross_entropy, ways=WAYS, tx=SGD, **options)
    peer = maml(with_head(CURVED, WAYS), cross_entropy, tx=masked("rests", "learns"), **options)
    _, grads = assert_same(ours, peer, key)
    assert np.abs(grads.features).max() > 1e-3  # they are trained by the outer loss


def test_the_depth_of_adaptation_is_the_one_asked_for(key):
    ours = anil(CURVED, cross_entropy, ways=WAYS, tx=SGD, steps=1)
    peer = maml(with_head(CURVED, WAYS), cross_entropy, tx=masked("rests", "learns"), steps=1)
    assert_same(ours, peer, key, steps=4)


def test_features_are_computed_once_and_not_at_each_step(key):
    calls = []

    def apply(params, x, *, key=None, weight=None):
        jax.debug.callback(lambda: calls.append(1))
        return x @ params

    counted = Model(lambda key, x: jnp.eye(3), apply)
    learner = anil(counted, cross_entropy, ways=WAYS, tx=SGD, steps=5)
    params = Headed(jnp.eye(3), jnp.zeros((3, WAYS)), jnp.zeros(WAYS))
    learner.adapt(key, params, Batch(jnp.ones((4, 3)), jnp.zeros(4, int)))
    jax.effects_barrier()
    assert len(calls) == 1
