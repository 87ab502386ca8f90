"""Logistic regression: scikit-learn, the optimality condition, and examples that do not count."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxdl.meta.logistic import logistic_regression


@partial(jax.jit, static_argnames="ways")
def solve(x, y, weight=None, ways=3, l2=1.0):
    return logistic_regression(x, y, weight, ways=ways, l2=l2)


def problem(n, width, ways, scale=1.0):
    rng = np.random.default_rng(n)
    y = np.arange(n) % ways
    x = rng.normal(size=(n, width)) + 2 * rng.normal(size=(ways, width))[y]
    x *= scale / np.linalg.norm(x, axis=1, keepdims=True)
    asked = rng.normal(size=(20, width))
    asked *= scale / np.linalg.norm(asked, axis=1, keepdims=True)
    return np.float32(x), y, np.float32(rng.uniform(0.2, 3, size=n)), np.float32(asked)


@pytest.mark.parametrize(
    ("n", "width", "ways", "scale", "l2"),
    [
        (5, 64, 5, 1, 1),  # 5-way 1-shot
        (25, 800, 5, 1, 1),  # 5-way 5-shot
        (100, 64, 20, 1, 1),
        (300, 10, 3, 1, 1),
        (60, 5, 2, 1, 1),
        (25, 64, 5, 8, 1),  # features of any length: the linear problem is less well conditioned
        (200, 20, 4, 1, 0.01),
    ],
)
def test_probabilities_are_those_of_scikit_learn(n, width, ways, scale, l2):
    """Which runs in float64. Its objective for two classes has half of the penalty."""
    x, y, weight, asked = problem(n, width, ways, scale)
    model = LogisticRegression(C=(2 if ways == 2 else 1) / l2, tol=1e-10, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's line search ends at the last digit
        expected = model.fit(np.float64(x), y, weight).predict_proba(np.float64(asked))
    found = solve(x, y, weight, ways=ways, l2=l2)
    probabilities = jax.nn.softmax(asked @ found.kernel + found.bias[None])
    np.testing.assert_allclose(probabilities, expected, atol=1e-4, rtol=0)
    assert np.ptp(expected, axis=0).max() > 0.05


def test_rows_of_weight_0_and_absent_classes_change_nothing():
    x, y, weight, _ = problem(12, 4, 3)
    cut = solve(x, y, weight)
    holes = jnp.full((24, 4), jnp.nan).at[::2].set(x)
    labels = jnp.full(24, -100).at[::2].set(y)
    padded = solve(holes, labels, jnp.zeros(24).at[::2].set(weight), ways=5)
    np.testing.assert_allclose(padded.kernel[:, :3], cut.kernel, atol=1e-5)
    np.testing.assert_allclose(padded.bias[:3], cut.bias, atol=1e-5)
    assert not padded.kernel[:, 3:].any()
    assert (padded.bias[3:] == -jnp.inf).all()


def test_a_row_of_weight_2_is_the_row_twice():
    x, y, *_ = problem(6, 4, 3)
    twice = solve(np.concatenate([x, x[:2]]), np.concatenate([y, y[:2]]))
    weighed = solve(x, y, np.array([2.0, 2, 1, 1, 1, 1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), weighed, twice)


def test_unequal_weights_converge():
    """Newton's full steps overshoot here, so that the line search has to shorten them."""
    x = np.float32([[-1, -5], [-1, 2], [2, -3], [1, 3], [18, -7], [-9, 1]])
    y, weight = np.array([0, 1, 2, 0, 0, 0]), np.float32([1, 1, 1000, 1, 100, 1])
    found = solve(x, y, weight)
    p = np.asarray(jax.nn.softmax(x @ found.kernel + found.bias[None]))
    slope = weight[:, None] * (p - np.eye(3)[y])
    assert abs(x.T @ slope + np.asarray(found.kernel)).max() < 1e-2
    assert abs(slope.sum(axis=0)).max() < 1e-2


def test_many_tasks_are_solved_at_once():
    tasks = [problem(n, 4, 3)[:2] for n in (12, 12)]
    together = jax.vmap(solve)(*(jnp.stack(part) for part in zip(*tasks, strict=True)))
    for i, task in enumerate(tasks):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, solve(*task))


def test_no_example_that_counts_leaves_no_nan():
    found = solve(*problem(6, 4, 3)[:2], np.zeros(6))
    assert not found.kernel.any()
    assert (found.bias == -jnp.inf).all()
