"""The quadratic programs, against SciPy and by their conditions of optimality."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from jaxdl.optim.qp import min_norm, nonnegative


def test_nonnegative_least_squares_is_that_of_scipy():
    rng = np.random.default_rng(0)
    matrices, targets = rng.normal(size=(60, 9, 6)), rng.normal(size=(60, 9))
    # Alike, and with positive solutions nearby: here members of the active set leave it again.
    matrices[30:] += 3 * rng.normal(size=(30, 9, 1))
    targets[30:] += np.einsum("bij,bj->bi", matrices[30:], np.abs(rng.normal(size=(30, 6))) / 3)
    matrices *= np.exp(2 * rng.normal(size=(60, 1, 6)))
    with jax.enable_x64(True):
        grams = jnp.asarray(matrices.transpose(0, 2, 1) @ matrices)
        products = jnp.asarray(np.einsum("bij,bi->bj", matrices, targets))
        found = np.asarray(jax.jit(jax.vmap(nonnegative))(grams, products))
    expected = np.stack([nnls(a, b)[0] for a, b in zip(matrices, targets, strict=True)])
    assert 0 < np.mean(expected == 0) < 1
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_the_shortest_vector_satisfies_its_inequality_even_where_vectors_repeat():
    """`v @ u >= v @ v` for all u of the hull; and float32 finds it among very unequal lengths."""
    rng = np.random.default_rng(1)
    many = rng.normal(size=(80, 6, 8)) * np.exp(2 * rng.normal(size=(80, 6, 1)))
    many[:20, 3:] = many[:20, :3]
    many[20:40, 5] = many[20:40, 0] * 1.0001
    many[40:60, 5] = many[40:60, 0] + 0.5 * many[40:60, 1]
    least = np.min(np.linalg.norm(many, axis=2), axis=1)
    grams = many @ many.transpose(0, 2, 1)

    def shortest(dtype):
        weights = np.asarray(jax.jit(jax.vmap(min_norm))(jnp.asarray(grams, dtype)), np.float64)
        assert np.all(weights >= 0)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
        return np.einsum("bt,btp->bp", weights, many)

    with jax.enable_x64(True):
        exact = shortest(jnp.float64)
    products = np.einsum("bp,btp->bt", exact, many).min(axis=1)
    assert np.all(np.sum(exact**2, axis=1) - products < 1e-10 * least**2)
    assert np.all(np.linalg.norm(shortest(jnp.float32) - exact, axis=1) < 1e-5 * least)
