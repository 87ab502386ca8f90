"""Directions of vectors, and the derivatives where a length is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.meta.vectors import class_means, unit

VECTORS = np.random.default_rng(0).normal(size=(4, 3))


def test_directions_are_those_of_numpy():
    expected = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(unit(jnp.asarray(VECTORS)), expected, rtol=1e-6)
    np.testing.assert_allclose(unit(jnp.asarray(VECTORS).reshape(2, 2, 3)).reshape(4, 3), expected,
                               rtol=1e-6)  # fmt: skip


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_neither_tiny_nor_huge_vectors_lose_their_direction(length):
    """Their squares are 0 or infinity in float32."""
    expected = unit(jnp.asarray(VECTORS))
    np.testing.assert_allclose(unit(jnp.asarray(VECTORS * length, "float32")), expected, rtol=1e-5)


def test_the_derivative_is_that_of_the_quotient_and_zero_at_zero():
    with jax.enable_x64(True):
        v = jnp.asarray([1.0, -2.0, 2.0])
        expected = (np.eye(3) - np.outer(v, v) / 9) / 3
        np.testing.assert_allclose(jax.jacobian(unit)(v), expected, rtol=1e-12)
        # The second derivative is along v: one of a quotient by its length.
        along = jax.jvp(jax.jacobian(unit), (v,), (v,))[1]
        np.testing.assert_allclose(along, -expected, rtol=1e-12)
    assert not jax.jacobian(unit)(jnp.zeros(3)).any()
    assert not jax.hessian(unit)(jnp.zeros(3)).any()


def test_means_are_weighted_and_ignore_rows_of_weight_zero():
    x = jnp.asarray(VECTORS).at[3].set(jnp.nan)
    labels, weight = jnp.array([1, 1, 0, 2]), jnp.array([1.0, 3.0, 0.5, 0.0])
    means, present = class_means(x, labels, 3, weight)
    expected = [VECTORS[2], (VECTORS[0] + 3 * VECTORS[1]) / 4, np.zeros(3)]
    np.testing.assert_allclose(means, expected, rtol=1e-6)
    assert present.tolist() == [True, True, False]
