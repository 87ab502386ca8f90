"""Baseline++: the paper's cosine head and its gradient by NumPy, on frozen features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta.baseline_pp import baseline_pp
from jaxdl.models.layers.cosine import CosineHead
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch

NET = mlp((6,))
RNG = np.random.default_rng(0)
X, ASKED = np.float32(RNG.normal(size=(12, 4))), np.float32(RNG.normal(size=(9, 4)))
Y, WEIGHT = np.arange(12) % 3, np.float32(RNG.uniform(0.5, 4, size=12))


def learner_of(classes=7, **options):
    make = {"ways": 3, "tx": optax.sgd(0.5), "steps": 3, **options}
    return baseline_pp(NET, cross_entropy, classes=classes, **make)


def by_hand(directions, lengths, features, scale):
    cosines = features @ directions
    cosines /= np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(directions, axis=0)
    return scale * lengths * cosines


def loss_by_hand(directions, lengths, features, scale):
    z = by_hand(directions, lengths, features, scale)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(12), Y]
    return (WEIGHT * losses).sum() / WEIGHT.sum()


@pytest.mark.parametrize(("classes", "scale"), [(7, 2), (200, 2), (201, 10)])
def test_the_scale_of_the_paper_depends_on_the_number_of_classes(classes, scale, key):
    learner = learner_of(classes)
    params = learner.init(key, X)
    features = np.asarray(NET.apply(params.features, ASKED), float)
    found = learner.predict(params, ASKED)  # of the training classes
    head = [np.asarray(leaf, float) for leaf in params.head]
    np.testing.assert_allclose(found, by_hand(*head, features, scale), rtol=1e-4, atol=1e-5)


def test_steps_in_a_task_follow_the_gradient_of_finite_differences(key):
    """Of directions and lengths; the features stay."""
    learner = learner_of(scale=3.0)
    params = learner.init(key, X)
    adapt = jax.jit(learner.adapt, static_argnames="steps")
    start, after = (adapt(key, params, Batch(X, Y, WEIGHT), steps=steps) for steps in (0, 3))
    jax.tree.map(np.testing.assert_array_equal, after.features, params.features)
    features = np.asarray(NET.apply(params.features, X), float)
    head = [np.asarray(leaf, float) for leaf in start.head]
    assert head[0].shape == (6, 3)
    for _ in range(3):
        slopes = [np.zeros_like(leaf) for leaf in head]
        for leaf, slope in zip(head, slopes, strict=True):
            for at in np.ndindex(leaf.shape):
                ends, middle = [], leaf[at]
                for shift in (1e-5, -1e-5):
                    leaf[at] = middle + shift
                    ends.append(loss_by_hand(*head, features, 3.0))
                leaf[at], slope[at] = middle, (ends[0] - ends[1]) / 2e-5
        head = [leaf - 0.5 * slope for leaf, slope in zip(head, slopes, strict=True)]
    for found, expected in zip(after.head, head, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_lengths_of_features_and_directions_mean_nothing(key):
    learner = learner_of()
    params = learner.init(key, X)
    head = CosineHead(7 * params.head.directions, params.head.lengths)
    longer = params._replace(head=head, features=jax.tree.map(lambda w: 5 * w, params.features))
    found, expected = (learner.predict(each, jnp.asarray(ASKED)) for each in (longer, params))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
