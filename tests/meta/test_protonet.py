"""Prototypes by NumPy, and classes that the support set lacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta.nearest_centroid import nearest_centroid
from jaxdl.meta.protonet import protonet
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode

SUPPORT = Batch(
    jnp.array([[3.0, 0.0], [5.0, 0.0], [0.0, 8.0], [9.0, 9.0]]),
    jnp.array([0, 0, 1, 2]),
    jnp.array([1.0, 3.0, 0.5, 0.0]),  # the third class has no example that counts, the last none
)
QUERY = Batch(jnp.array([[0.1, 0.1], [4.0, 1.0]]), jnp.array([0, 0]))


def test_logits_are_distances_to_weighted_means_and_minus_infinity_for_an_absent_class(key):
    """The first query lies at zero, where the prototypes of absent classes would be."""
    learner = nearest_centroid(cross_entropy, ways=4)
    adapted = learner.adapt(key, (), SUPPORT)
    found = learner.predict(adapted, QUERY.x)
    means = np.array([[4.5, 0.0], [0.0, 8.0]])
    distances = ((np.asarray(QUERY.x)[:, None] - means[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found[:, :2], -distances, rtol=1e-6)
    assert (found[:, 2:] == -jnp.inf).all()
    assert adapted.present.tolist() == [True, True, False, False]
    assert jax.nn.softmax(found)[:, 2:].max() == 0


def test_cosines_with_the_means_of_raw_inputs(key):
    """A class has its mean before its direction; the brightness of a query does not count."""
    learner = nearest_centroid(cross_entropy, ways=4, distance="cosine")
    adapted = learner.adapt(key, (), SUPPORT)
    queries = np.array([[0.1, 0.1], [4.0, 1.0], [400.0, 100.0], [0.0, 0.0]])
    found = learner.predict(adapted, jnp.asarray(queries, "float32").reshape(4, 1, 2))
    weights, x = np.asarray(SUPPORT.weight)[:2], np.asarray(SUPPORT.x)
    means = np.stack([weights @ x[:2] / weights.sum(), x[2]])
    lengths = np.outer(*(np.linalg.norm(each, axis=1) for each in (queries[:3], means)))
    np.testing.assert_allclose(found[:3, :2], queries[:3] @ means.T / lengths, rtol=1e-6)
    assert not found[3, :2].any()
    assert (found[:, 2:] == -jnp.inf).all()


def test_the_mean_is_taken_before_the_direction(key):
    """The mean of [1, 0] and [0, 9] is nearly [0, 1]; that of their directions is between them."""
    learner = nearest_centroid(cross_entropy, ways=1, distance="cosine")
    x = jnp.array([[1.0, 0.0], [0.0, 9.0]])
    found = learner.predict(learner.adapt(key, (), Batch(x, jnp.array([0, 0]))), x)
    np.testing.assert_allclose(found[:, 0], np.array([1, 9]) / np.sqrt(82), rtol=1e-6)


def test_the_gradient_s_metrics_are_of_the_cosines(key):
    learner = nearest_centroid(cross_entropy, ways=3, distance="cosine")
    _, metrics = learner.grad(key, jnp.int32(0), (), Episode(SUPPORT, QUERY))
    logits = learner.predict(learner.adapt(key, (), SUPPORT), QUERY.x)
    np.testing.assert_allclose(metrics["loss"], cross_entropy(logits, QUERY.y)[0], rtol=1e-6)


def test_an_unknown_distance_is_refused():
    with pytest.raises(
        InputError, match=r"`distance=cosin` is unknown. Choose euclidean or cosine"
    ):
        nearest_centroid(cross_entropy, ways=2, distance="cosin")


@pytest.mark.parametrize("weight", [1e-12, 1e12])
def test_the_scale_of_weights_means_nothing(weight, key):
    learner = nearest_centroid(cross_entropy, ways=3)
    scaled, plain = (
        learner.adapt(key, (), SUPPORT._replace(weight=SUPPORT.weight * factor))
        for factor in (weight, 1)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), scaled, plain)


def test_absent_classes_change_neither_the_loss_nor_the_gradient(key):
    """As many ways as the task has, or more: that is the same learner."""
    net = mlp((8, 4))
    params = net.init(key, QUERY.x)
    episode = Episode(SUPPORT, QUERY)
    two, four = (
        jax.jit(protonet(net, cross_entropy, ways=ways).grad)(key, jnp.int32(0), params, given)
        for ways, given in ((2, Episode(jax.tree.map(lambda leaf: leaf[:3], SUPPORT), QUERY)),
                            (4, episode))
    )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), four, two)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(four[0]))
