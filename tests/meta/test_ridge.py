"""Ridge regression against scikit-learn, NumPy and finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxdl.meta.ridge import ridge, ridge_head, ridge_scores
from jaxdl.types import Batch

STRENGTH = 0.7
SHAPES = pytest.mark.parametrize("rows", [4, 9], ids=["dual", "primal"])
WIDTH = 5


def problem(rows):
    rng = np.random.default_rng(rows)
    x, y = rng.normal(size=(rows, WIDTH)), rng.normal(size=(rows, 3))
    return x, y, rng.uniform(0.1, 3, size=rows)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


@SHAPES
def test_kernel_is_that_of_scikit_learn(rows):
    x, y, weight = problem(rows)
    for weights in (None, weight):
        found = ridge(jnp.asarray(x), jnp.asarray(y), STRENGTH, weights)
        peer = Ridge(alpha=STRENGTH, fit_intercept=False, solver="svd").fit(x, y, weights)
        np.testing.assert_allclose(found, peer.coef_.T, rtol=1e-9)


@SHAPES
def test_each_axis_of_a_target_has_its_own_normal_equations(rows):
    x, _, weight = problem(rows)
    y = np.random.default_rng(1).normal(size=(rows, 2, 3))
    found = ridge(jnp.asarray(x), jnp.asarray(y), STRENGTH, jnp.asarray(weight))
    left = x.T @ np.diag(weight) @ x + STRENGTH * np.eye(WIDTH)
    np.testing.assert_allclose(
        np.einsum("vw,wab->vab", left, found), np.einsum("nw,n,nab->wab", x, weight, y), rtol=1e-9
    )
    one = ridge(jnp.asarray(x), jnp.asarray(y[:, 0, 1]), STRENGTH, jnp.asarray(weight))
    np.testing.assert_allclose(one, found[:, 0, 1], rtol=1e-9)


@SHAPES
def test_rows_of_weight_zero_drop_out_of_values_and_gradients(rows):
    x, y, weight = problem(rows)
    void = np.full((6, 1), np.nan)  # so many that the other of the two systems is solved
    filled = [np.concatenate([part, void * np.ones(part.shape[1])]) for part in (x, y)]

    def kernel_and_gradients(x, y, weight):
        value = lambda *given: jnp.sum(jnp.sin(ridge(*given)))  # noqa: E731
        return ridge(x, y, STRENGTH, weight), jax.grad(value, (0, 1, 3))(x, y, STRENGTH, weight)

    found, (by_x, by_y, by_weight) = kernel_and_gradients(
        *map(jnp.asarray, filled), jnp.concatenate([weight, jnp.zeros(6)])
    )
    expected, by_cut = kernel_and_gradients(*map(jnp.asarray, (x, y, weight)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for each, cut in zip((by_x, by_y, by_weight), by_cut, strict=True):
        np.testing.assert_allclose(each[:rows], cut, rtol=1e-8)
        assert not each[rows:].any()


@SHAPES
def test_gradients_are_finite_differences(rows):
    given = (*problem(rows), np.float64(STRENGTH))

    @jax.jit
    def value(x, y, weight, strength):
        return jnp.sum(jnp.sin(ridge(x, y, strength, weight)))

    grads = jax.jit(jax.grad(value, argnums=range(4)))(*given)
    for place, grad in enumerate(grads):
        direction = np.cos(np.arange(np.size(given[place]), dtype=float)).reshape(grad.shape)
        ends = []
        for h in (1e-5, -1e-5):
            moved = list(given)
            moved[place] = moved[place] + h * direction
            ends.append(value(*moved))
        np.testing.assert_allclose(np.sum(grad * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


def test_second_derivatives_at_a_one_hot_design_are_finite():
    """The best case of a ridge head. The derivatives of `lstsq` are NaN there."""
    value = lambda x: jnp.sum(jnp.sin(ridge(x, jnp.eye(3), STRENGTH)))  # noqa: E731
    assert np.isfinite(jax.hessian(value)(jnp.eye(3))).all()
    assert not np.isfinite(
        jax.grad(lambda x: jnp.linalg.lstsq(x, jnp.eye(3))[0].sum())(jnp.eye(3))
    ).all()


def test_a_head_of_labels_and_a_head_of_numbers():
    x, _, weight = problem(4)
    labels, weight = jnp.array([1, 0, 0, 3]), jnp.asarray(weight).at[3].set(0)
    head = ridge_head(jnp.asarray(x), Batch(x, labels, weight), STRENGTH, ways=4)
    assert head.present.tolist() == [True, True, False, False]
    numbers = jax.nn.one_hot(labels, 4)
    free = ridge_head(jnp.asarray(x), Batch(x, numbers, weight), STRENGTH, ways=4)
    assert free.present.all()
    np.testing.assert_array_equal(head.kernel, free.kernel)
    found = ridge_scores(head, jnp.asarray(x), jnp.asarray(2.0), 1.0)
    np.testing.assert_allclose(found[:, :2], 2 * x @ head.kernel[:, :2] + 1, rtol=1e-12)
    assert (found[:, 2:] == -jnp.inf).all()


@pytest.mark.parametrize("shape", [(3, 70), (70, 3)])
def test_the_smaller_of_the_two_systems_is_solved(shape):
    program = jax.make_jaxpr(lambda x, y: ridge(x, y, STRENGTH))(
        jnp.ones(shape), jnp.ones(shape[0])
    )
    assert "[3,3]" in str(program)
    assert "[70,70]" not in str(program)
