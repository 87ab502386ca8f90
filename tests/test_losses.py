"""Losses against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
WEIGHT = np.array([1, 0, 2, 1, 0], np.float32)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_cross_entropy(weight):
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), weight)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    expected = -np.log(probabilities[np.arange(5), LABELS])
    np.testing.assert_allclose(loss, np.average(expected, weights=weight), rtol=1e-6)
    right = LOGITS.argmax(1) == LABELS
    np.testing.assert_allclose(metrics["accuracy"], np.average(right, weights=weight), rtol=1e-6)


def test_smoothing_mixes_the_label_with_all_classes():
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), WEIGHT, smoothing=0.2)
    logits = LOGITS.astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = 0.8 * np.eye(4)[LABELS] + 0.2 / 4
    expected = np.average(-(target * log_probabilities).sum(1), weights=WEIGHT)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["loss"] == loss


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_mean_squared_error_has_no_factor_one_half(weight):
    prediction, target = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    loss, metrics = mean_squared_error(jnp.asarray(prediction), jnp.asarray(target), weight)
    expected = np.average(((prediction - target) ** 2).mean(1), weights=weight)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["loss"] == loss


def test_a_batch_of_nothing_but_padding_weighs_nothing():
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.zeros(5))
    assert loss == 0
    assert metrics["accuracy"] == 0
