"""Centred features of length 1 by NumPy, and the mean that training collects."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.grads import supervised
from jaxdl.losses import cross_entropy
from jaxdl.meta.feature_mean import averaging_mean
from jaxdl.meta.head import with_head
from jaxdl.meta.simpleshot import simpleshot
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Model

IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
SUPPORT = Batch(
    jnp.array([[3.0, 0.0], [5.0, 2.0], [0.0, 8.0], [9.0, 9.0]]),
    jnp.array([0, 0, 1, 2]),
    jnp.array([1.0, 3.0, 0.5, 0.0]),  # the third class has no example that counts
)
QUERY = np.array([[0.1, 0.1], [4.0, 1.0], [-2.0, 3.0]])
CENTRES = {"training": [1.0, -2.0], "support": [(3 + 15) / 4.5, (6 + 4) / 4.5], "none": [0.0, 0.0]}


@pytest.mark.parametrize("centre", CENTRES)
def test_logits_are_distances_of_centred_directions_to_their_means(centre, key):
    learner = simpleshot(IDENTITY, cross_entropy, classes=7, ways=4, centre=centre)
    params = learner.init(key, SUPPORT.x)._replace(mean=jnp.array(CENTRES["training"]))
    found = learner.predict(learner.adapt(key, params, SUPPORT), jnp.asarray(QUERY, "float32"))

    def directions(x):
        x = np.asarray(x) - CENTRES[centre]
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    rows = directions(SUPPORT.x[:3])
    means = np.stack([(rows[0] + 3 * rows[1]) / 4, rows[2]])
    distances = ((directions(QUERY)[:, None] - means[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found[:, :2], -distances, rtol=1e-5, atol=1e-6)
    assert np.isneginf(found[:, 2:]).all()


def labelled(seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(8, 3)) + 2, "float32").at[7].set(jnp.nan)
    return Batch(x, jnp.arange(8) % 4, jnp.asarray([1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0, 0.0]))


def test_the_net_is_trained_by_the_loss_alone_and_the_mean_by_its_distance(key):
    net, batch = mlp((5,)), labelled()
    learner = simpleshot(net, cross_entropy, classes=4, ways=2)
    params = learner.init(key, batch.x)._replace(mean=jnp.arange(5.0))
    grads, metrics = jax.jit(learner.grad)(key, jnp.int32(0), params, batch)
    plain = jax.jit(supervised(with_head(net, 4), cross_entropy))
    expected, told = plain(key, jnp.int32(0), params.net, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads.net,
                 expected)  # fmt: skip
    np.testing.assert_allclose(metrics["loss"], told["loss"], rtol=1e-6)
    hidden = net.apply(params.net.features, batch.x[:7])
    mean = np.average(hidden, axis=0, weights=batch.weight[:7])
    np.testing.assert_allclose(grads.mean, np.arange(5) - mean, rtol=1e-5)


@pytest.mark.parametrize("tx", [optax.sgd(0.05), optax.adam(0.01)], ids=["sgd", "adam"])
def test_training_finds_the_mean_of_the_features(tx, key):
    """Features that stay as they are, in batches of their own; the mean of all is known."""
    learner = simpleshot(IDENTITY, cross_entropy, classes=4, ways=2)
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(labelled, range(20)))
    params = learner.init(key, batches.x[0])

    @jax.jit
    def train(params):
        def step(carry, i):
            params, state = carry
            batch = jax.tree.map(lambda leaf: leaf[i % 20], batches)
            grads, _ = learner.grad(key, i, params, batch)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(1000))[0][0]

    x, weight = (
        np.asarray(batches.x)[:, :7].reshape(-1, 3),
        np.asarray(batches.weight)[:, :7].ravel(),
    )
    np.testing.assert_allclose(train(params).mean, np.average(x, axis=0, weights=weight), atol=0.1)


def test_an_unknown_centre_is_refused():
    with pytest.raises(InputError, match=r"is unknown. Choose among training support none"):
        simpleshot(IDENTITY, cross_entropy, classes=4, ways=2, centre="query")


@pytest.mark.parametrize("tx", [optax.adam(1e-3), optax.chain(optax.clip(0.1), optax.sgd(0.1))])
def test_the_mean_is_a_running_average_whatever_the_optimiser(tx, key):
    """A weight moves by the learning rate of Adam per step, and so would the mean."""
    x = jax.random.normal(key, (8, 3)) + jnp.array([[5.0, -3.0, 40.0]])
    learner = simpleshot(IDENTITY, cross_entropy, classes=4, ways=2)
    batch, tx = Batch(x, jnp.arange(8) % 4), averaging_mean(tx)

    @jax.jit
    def trained(params):
        def step(i, both):
            grads, _ = learner.grad(key, i, both[0], batch)
            updates, state = tx.update(grads, both[1], both[0])
            return optax.apply_updates(both[0], updates), state

        return jax.lax.fori_loop(0, 600, step, (params, tx.init(params)))[0]

    start = learner.init(key, x)
    found = trained(start)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=5e-3)
    assert not np.allclose(found.net.kernel, start.net.kernel)


def test_other_parameters_are_left_to_the_optimiser(key):
    params, tx = {"w": jnp.ones(3)}, optax.adam(0.1)
    both = averaging_mean(tx)
    same = [each.update(params, each.init(params), params) for each in (tx, both)]
    jax.tree.map(np.testing.assert_array_equal, *same)
