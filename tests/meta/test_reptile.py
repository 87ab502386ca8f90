"""Reptile by hand: on quadratic losses, and its minibatches against a cut of the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.grads import over_tasks, supervised
from jaxdl.losses import mean_squared_error
from jaxdl.meta.minibatches import descend_by_minibatches, minibatch_rows
from jaxdl.meta.reptile import merged, reptile
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model

SLOPE = Model(lambda key, x: jnp.zeros(()), lambda w, x, *, key=None, weight=None: w * x)
RATE = 0.1


def tasks(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = [Batch(rng.normal(size=(count, n, 2)), rng.normal(size=(count, n, 1))) for n in (3, 5)]
    return jax.tree.map(jnp.asarray, Episode(*parts))


def numbers(tree):
    return jax.tree.map(np.asarray, tree)


def test_one_step_of_sgd_is_joint_training_on_all_examples(key):
    """Divided by the inner rate it is the gradient of the mean loss of all tasks."""
    net = mlp((3, 1))
    with jax.enable_x64(True):
        episodes = tasks(4)
        params = jax.tree.map(lambda p: p.astype(float), net.init(key, episodes.support.x[0]))
        learner = reptile(net, mean_squared_error, tx=optax.sgd(RATE), steps=1)
        found, _ = jax.jit(over_tasks(learner.grad))(key, 0, params, episodes)
        pooled = jax.tree.map(
            lambda leaf: leaf.reshape(-1, leaf.shape[-1]), jax.vmap(merged)(episodes)
        )
        expected, _ = jax.jit(supervised(net, mean_squared_error))(key, 0, params, pooled)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, RATE * b, rtol=1e-9),
        *map(numbers, (found, expected)),
    )


def test_two_steps_by_hand(key):
    """The loss is the mean of (w - y)^2, so a step leaves 0.8 of the way to the mean target, 4."""
    learner = reptile(SLOPE, mean_squared_error, tx=optax.sgd(RATE), steps=2)
    ones = jnp.ones((2, 1))
    episode = Episode(Batch(ones, 2 * ones), Batch(ones, 6 * ones))
    grads, metrics = learner.grad(key, 0, jnp.float32(1.0), episode)
    adapted = 4 - 3 * 0.8**2
    np.testing.assert_allclose(grads, 1 - adapted, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (adapted - 6) ** 2, rtol=1e-6)
    # At test it sees the support set alone, whose mean is 2.
    for steps, left in ((None, 0.8**2), (0, 1), (3, 0.8**3)):
        found = learner.adapt(key, jnp.float32(1.0), episode.support, steps)
        np.testing.assert_allclose(found, 2 - left, rtol=1e-6)
    # The outer step by SGD is the paper's interpolation.
    moved = optax.apply_updates(jnp.float32(1.0), -0.25 * grads)
    np.testing.assert_allclose(moved, 0.75 * 1 + 0.25 * adapted, rtol=1e-6)


def test_a_momentum_goes_on_from_minibatch_to_minibatch(key):
    """With one and the same example in all rows: as steps on the whole set."""
    batch = Batch(jnp.ones((4, 1)), jnp.full((4, 1), 3.0))
    learners = [
        reptile(SLOPE, mean_squared_error, tx=optax.sgd(RATE, momentum=0.5), steps=3, batch_size=n)
        for n in (None, 2)
    ]
    whole, drawn = (each.adapt(key, jnp.float32(1.0), batch) for each in learners)
    np.testing.assert_allclose(whole, drawn, rtol=1e-6)
    v, w = 0.0, 1.0
    for _ in range(3):
        v = 0.5 * v + 2 * (w - 3)
        w -= RATE * v
    np.testing.assert_allclose(drawn, w, rtol=1e-6)


# ---- minibatches


@pytest.mark.parametrize(("size", "weights"), [(3, [1] * 7), (3, [0, 1, 2, 0, 1, 1, 1, 1, 0])])
def test_an_epoch_takes_each_example_once(size, weights, key):
    """Also where a minibatch spans two epochs."""
    rows, counts = jax.jit(minibatch_rows, static_argnames=("size", "steps"))(
        key, jnp.asarray(weights, jnp.float32), size=size, steps=14
    )
    those = np.flatnonzero(weights)
    epochs = np.asarray(rows).ravel()[: 6 * len(those)].reshape(6, -1)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(those, (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert np.all(counts)


def test_padding_changes_no_minibatch(key):
    """The same examples at other rows, with padding between them, are drawn in the same order."""
    short = minibatch_rows(key, jnp.ones(5), size=2, steps=6)
    padded = minibatch_rows(key, jnp.asarray([0.0, 1, 0, 1, 1, 0, 1, 1]), size=2, steps=6)
    places = np.array([1, 3, 4, 6, 7])
    np.testing.assert_array_equal(places[np.asarray(short[0])], padded[0])


@pytest.mark.parametrize("left", [0, 1, 3])
def test_of_too_few_examples_all_are_taken(left, key):
    """Not one of them twice; and no example at all is no step."""
    x, y = jnp.ones((6, 1)), jnp.arange(6.0)[:, None]
    batch = Batch(x, y.at[left:].set(jnp.nan), weight=jnp.where(jnp.arange(6) < left, 1.0, 0.0))
    learner = reptile(SLOPE, mean_squared_error, tx=optax.sgd(RATE), steps=2, batch_size=4)
    found = learner.adapt(key, jnp.float32(1.0), batch)
    mean = float(np.mean(np.arange(left))) if left else 1.0
    np.testing.assert_allclose(found, mean + (1 - mean) * 0.8**2, rtol=1e-6)


def test_the_weight_of_an_example_counts_in_its_minibatch(key):
    """Two examples of weights 3 and 1, drawn together among padding."""
    batch = Batch(
        jnp.ones((3, 1)), jnp.asarray([[4.0], [0.0], [8.0]]), jnp.asarray([3.0, 0.0, 1.0])
    )
    found = descend_by_minibatches(
        lambda w, key, part: mean_squared_error(w * part.x, part.y, part.weight),
        jnp.float32(0.0),
        optax.sgd(0.5),
        batch,
        size=2,
        steps=1,
        key=key,
    )
    np.testing.assert_allclose(found, (3 * 4 + 8) / 4, rtol=1e-6)


def test_tasks_of_dicts_with_and_without_weights_are_merged():
    support = Batch({"a": jnp.zeros((2, 3))}, jnp.zeros(2))
    query = Batch({"a": jnp.ones((1, 3))}, jnp.ones(1), jnp.zeros(1))
    found = merged(Episode(support, query))
    assert found.x["a"].shape == (3, 3)
    np.testing.assert_array_equal(found.weight, [1, 1, 0])
    assert merged(Episode(support, support)).weight is None


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1, "batch_size": 0}])
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(InputError, match=r"=0`: choose 1 or more"):
        reptile(SLOPE, mean_squared_error, tx=optax.sgd(RATE), **options)
