"""Solvers against NumPy: definite, indefinite and singular matrices, on trees and under vmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdl.errors import InputError
from jaxdl.meta.solvers import conjugate_gradients, neumann

SIZE = 5


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors as columns."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))
    return vectors @ np.diag(eigenvalues) @ vectors.T, vectors


def right_side(seed=1):
    return np.random.default_rng(seed).normal(size=SIZE)


def solve(solver, matrix, b, **options):
    """In float64, compiled."""
    with jax.enable_x64(True):
        found = jax.jit(lambda m, b: solver(lambda v: m @ v, b, **options))(matrix, b)
        return np.asarray(found)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_conjugate_gradients_are_exact_after_as_many_steps_as_eigenvalues(damping):
    matrix, _ = symmetric([0.5, 1.0, 2.0, 4.0, 9.0])
    b = right_side()
    expected = np.linalg.solve(matrix + damping * np.eye(SIZE), b)
    found = solve(conjugate_gradients, matrix, b, steps=SIZE, damping=damping)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert not np.allclose(solve(conjugate_gradients, matrix, b, steps=SIZE - 1), expected)


def test_fewer_steps_minimise_on_their_krylov_space():
    """Two steps give the minimum of x A x / 2 - b x over the span of b and A b."""
    matrix, _ = symmetric([0.5, 1.0, 2.0, 4.0, 9.0])
    b = right_side()
    basis = np.stack([b, matrix @ b], axis=1)
    expected = basis @ np.linalg.solve(basis.T @ matrix @ basis, basis.T @ b)
    found = solve(conjugate_gradients, matrix, b, steps=2)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_steps_past_the_solution_do_not_follow_rounding_errors():
    """A is singular, and b in its range. What rounding leaves of the residual is in the null space,
    where the curvature is about zero and a step about infinite. In float32, ten problems."""
    matrices, sides, expected = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        vectors, _ = np.linalg.qr(rng.normal(size=(8, 8)))
        eigenvalues, inside = rng.uniform(0.5, 3, size=4), rng.normal(size=4)
        matrices.append((vectors[:, 4:] * eigenvalues) @ vectors[:, 4:].T)
        sides.append(vectors[:, 4:] @ inside)
        expected.append(vectors[:, 4:] @ (inside / eigenvalues))
    each = jax.vmap(lambda m, b: conjugate_gradients(lambda v: m @ v, b, steps=20))
    found = jax.jit(each)(np.float32(matrices), np.float32(sides))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_zero_the_solution_is_zero():
    zero = np.zeros(SIZE)
    np.testing.assert_array_equal(solve(conjugate_gradients, np.eye(SIZE), zero, steps=3), zero)


def test_a_direction_of_negative_curvature_ends_the_search():
    """A = diag(4, -1) and b = (1, 1/4): the first curvature is positive, the second is not.

    The first step has the rate bb / bAb = (17/16) / (4 - 1/16) = 17/63.
    """
    matrix, b = np.diag([4.0, -1.0]), np.array([1.0, 0.25])
    for steps in (1, 2, 9):
        found = solve(conjugate_gradients, matrix, b, steps=steps)
        np.testing.assert_allclose(found, 17 / 63 * b, rtol=1e-12)
        assert found @ b > 0


def test_a_direction_below_the_least_curvature_ends_the_search():
    """A = diag(4, 1) and b = (1, 1): curvatures of 5/2, and then of the second direction below it.

    The first step has the rate 2/5. It leaves the residual (-3/5, 3/5), so the next direction is
    (-3/5, 3/5) + 9/25 (1, 1) = (-6, 24) / 25, whose curvature is (4 * 36 + 576) / 612 = 1.176.
    """
    matrix, b = np.diag([4.0, 1.0]), np.ones(2)
    for least, expected in ((2.6, b), (1.2, 0.4 * b), (1.1, np.array([0.25, 1.0]))):
        found = solve(conjugate_gradients, matrix, b, steps=5, least_curvature=least)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        options = {"steps": 5, "least_curvature": least, "damping": 1.0}  # the damping counts
        found = solve(conjugate_gradients, matrix - np.eye(2), b, **options)
        unmoved = expected is b
        np.testing.assert_allclose(found, b / 2 if unmoved else expected, rtol=1e-12)


@pytest.mark.parametrize("eigenvalue", [0.0, -2.0])
def test_if_the_first_direction_has_no_positive_curvature_the_matrix_counts_as_the_identity(
    eigenvalue,
):
    b = right_side()
    options = {"steps": 4, "damping": 3.0}
    found = solve(conjugate_gradients, (eigenvalue - 3) * np.eye(SIZE), b, **options)
    np.testing.assert_array_equal(found, b / 4)
    found = solve(conjugate_gradients, eigenvalue * np.eye(SIZE), b, steps=4)
    np.testing.assert_array_equal(found, b)
    np.testing.assert_array_equal(solve(conjugate_gradients, np.eye(SIZE) * 3, b, steps=0), b)


def test_damping_makes_an_indefinite_matrix_solvable():
    matrix, _ = symmetric([-1.5, -0.5, 1.0, 2.0, 4.0])
    b = right_side()
    expected = np.linalg.solve(matrix + 2 * np.eye(SIZE), b)
    found = solve(conjugate_gradients, matrix, b, steps=SIZE, damping=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_neumann_adds_the_terms_of_the_series(steps):
    matrix, _ = symmetric([0.5, 1.0, 2.0, 4.0, 6.0])
    b, rate = right_side(), 0.3
    power = np.eye(SIZE) - rate * matrix
    terms = [np.linalg.matrix_power(power, j) for j in range(steps + 1)]
    found = solve(neumann, matrix, b, steps=steps, rate=rate)
    np.testing.assert_allclose(found, rate * sum(terms) @ b, rtol=1e-12)


@pytest.mark.parametrize("eigenvalue", [-1.0, 9.0])
def test_neumann_ends_before_its_terms_grow(eigenvalue):
    """Along a small part of b alone. The terms shrink while the other part is longer."""
    matrix, b, rate = np.diag([2.0, eigenvalue]), np.array([1.0, 0.001]), 0.3
    power = np.eye(2) - rate * matrix
    terms = [np.linalg.matrix_power(power, j) @ b for j in range(60)]
    lengths = np.linalg.norm(terms, axis=1)
    shrinking = int(np.argmax(lengths[1:] > lengths[:-1])) + 1
    assert 2 < shrinking < 20
    for steps in (shrinking - 1, shrinking, 59):
        found = solve(neumann, matrix, b, steps=steps, rate=rate)
        np.testing.assert_allclose(found, rate * sum(terms[:shrinking]), rtol=1e-12)


def test_neumann_converges_to_the_solution():
    matrix, _ = symmetric([0.5, 1.0, 2.0, 4.0, 6.0])
    b = right_side()
    found = solve(neumann, matrix, b, steps=400, rate=0.3)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-9)


@pytest.mark.parametrize(
    "solver", [partial(conjugate_gradients, steps=3), partial(neumann, steps=3, rate=0.1)]
)
def test_trees_and_batches_are_solved_as_vectors_are(solver):
    """In a batch the problems stop at different steps, and none may change another."""
    matrices = np.stack([symmetric(e)[0] for e in ([1, 2, 3, 4, 5], [-3] * 5, [2] * 5)])
    b = np.stack([right_side(seed) for seed in range(3)])
    expected = [solve(solver, *pair) for pair in zip(matrices, b, strict=True)]

    def of_tree(matrix, b):
        tree = {"kernel": b[:4].reshape(2, 2), "bias": b[4]}
        _, unravel = ravel_pytree(tree)
        permute = jnp.array([4, 0, 1, 2, 3])  # the bias comes first in the flat tree
        small = matrix[permute][:, permute]
        found = solver(lambda v: unravel(small @ ravel_pytree(v)[0]), tree)
        return jnp.append(found["kernel"].reshape(-1), found["bias"])

    with jax.enable_x64(True):
        found = jax.jit(jax.vmap(of_tree))(matrices, b)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_16_bit_floats_keep_their_dtype():
    b = jnp.ones(3, jnp.bfloat16)
    for solver in (partial(conjugate_gradients, steps=2), partial(neumann, steps=2, rate=0.5)):
        assert solver(lambda v: 2 * v, b).dtype == jnp.bfloat16


def test_fewer_than_no_steps_are_refused():
    for solver in (partial(conjugate_gradients, steps=-1), partial(neumann, steps=-1, rate=0.1)):
        with pytest.raises(InputError, match="steps=-1: choose 0 or more steps of the solver"):
            solver(lambda v: v, jnp.ones(2))
