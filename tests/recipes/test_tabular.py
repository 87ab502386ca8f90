"""How a run of tabular classifies and is judged: the AUC by scikit-learn, orders, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxdl.data.sets.real_tables import TABLES, random_split, real_table
from jaxdl.errors import InputError
from jaxdl.recipes.tabular import (
    classify,
    learner_of_tables,
    padded,
    prior,
    probabilities,
    random_orders,
    roc_auc,
)
from jaxdl.types import Batch

SMALL = {"width": 4, "heads": 2, "layers": 1, "group": 2, "features": 4, "classes": 3}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_auc_is_that_of_scikit_learn(classes):
    """Scores of one digit have ties."""
    y = np.arange(40) % classes
    scores = RNG.dirichlet(np.ones(classes), size=40).round(1) + 0.05
    scores /= scores.sum(1, keepdims=True)
    oracle = scores[:, 1] if classes == 2 else scores
    assert roc_auc(y, scores) == pytest.approx(roc_auc_score(y, oracle, multi_class="ovr"))


def test_a_class_without_rows_has_no_curve():
    with pytest.raises(InputError, match="class 0 has 3 of 3 rows"):
        roc_auc(np.zeros(3, int), np.ones((3, 2)))


def test_orders_are_permutations_of_those_that_are_there():
    found = random_orders(5, 6, columns=3, classes=2, features=5, ways=4)
    assert found.columns.shape == (6, 5)
    assert np.sort(found.columns[:, :3]).tolist() == [[0, 1, 2]] * 6
    assert found.columns[:, 3:].tolist() == [[3, 4]] * 6
    assert found.classes[:, 2:].tolist() == [[2, 3]] * 6
    # In each place each class equally often.
    assert np.sort(found.classes[:, 0]).tolist() == [0, 0, 0, 1, 1, 1]
    again = random_orders(5, 6, columns=3, classes=2, features=5, ways=4)
    np.testing.assert_array_equal(found.columns, again.columns)


def test_padding_and_numbers_that_are_not_finite():
    cells, here = padded(np.array([[1.0, np.nan, 1e300], [np.inf, 2, 3]]), 4)
    assert cells.values.shape == (64, 4)
    assert np.isfinite(cells.values).all()
    assert cells.known[:2].tolist() == [[True, False, False, False], [False, True, True, False]]
    assert not cells.known[2:].any()
    assert here.tolist() == [True] * 2 + [False] * 62


@pytest.fixture(scope="module")
def net():
    learner = learner_of_tables(SMALL)
    params = jax.jit(learner.init)(jax.random.key(0), jnp.zeros((2, 4)))
    noise = np.random.default_rng(1).normal
    params = jax.tree.map(lambda p: p + 0.5 * noise(size=p.shape).astype("float32"), params)
    return learner, params, probabilities(learner)


X, Q = RNG.normal(size=(9, 3)), RNG.normal(size=(5, 3))
Y = np.arange(9) % 2


def test_a_prediction_is_the_mean_over_orders_of_columns_and_classes(net):
    """By predictions of tables in these orders, without padding."""
    learner, params, predict = net
    found = classify(predict, params, SMALL, X, Y, Q, seed=3, members=2)
    orders = random_orders(3, 2, columns=3, classes=2, features=4, ways=3)
    alone = jax.jit(lambda x, y, q: learner.predict(learner.adapt(None, params, Batch(x, y)), q))
    mean = 0
    for columns, classes in zip(*orders, strict=True):
        columns, place = columns[:3], np.argsort(classes)
        logits = np.asarray(alone(X[:, columns], place[Y], Q[:, columns]), float)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        mean = mean + shares[:, place[:2]] / 2
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_two_classes_that_change_names_change_probabilities_alone(net):
    """Both orders of two classes are among two members."""
    _, params, predict = net
    found = classify(predict, params, SMALL, X, Y, Q, seed=3, members=2)
    other = classify(predict, params, SMALL, X, 1 - Y, Q, seed=3, members=2)
    assert np.ptp(found[:, 0]) > 1e-3
    # The columns of the members differ, so each class order meets other columns: only with one
    # order of the columns are they equal.
    one = X[:, :1], Q[:, :1]
    found, other = (
        classify(predict, params, SMALL, one[0], y, one[1], seed=3, members=2) for y in (Y, 1 - Y)
    )
    np.testing.assert_allclose(found, other[:, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((4, 5)), np.arange(4) % 2, "the table has 5 columns, .* at most 4"),
        (np.ones((4, 3)), np.arange(4), "there are 4 classes, .* at most 3"),
    ],
)
def test_what_the_net_was_not_trained_for_is_refused(x, y, words):
    with pytest.raises(InputError, match=words):
        classify(None, None, SMALL, x, y, x, seed=0, members=1)


def test_the_prior_has_a_table_of_each_size():
    config = {"features": 16, "classes": 8, "shots": 40, "least_shots": 10, "queries": 3}
    shapes = jax.eval_shape(prior(config | {"sizes": 3}), jax.random.key(0))
    assert [each.support.x.values.shape for each in shapes] == [(40, 16), (20, 4), (10, 2)]
    assert [each.query.y.shape for each in shapes] == [(3,)] * 3


@pytest.mark.parametrize("name", TABLES)
def test_splits_are_apart_seeded_and_the_same_for_all(name):
    x, y = real_table(name)
    assert x.dtype == np.float32
    found = random_split(x, y, seed=4)
    columns = min(x.shape[1], 20)
    assert found.x.shape == (100, columns)
    assert found.test_x.shape == (50, columns)
    assert set(found.y) == set(found.test_y) == set(y)
    again, other = random_split(x, y, seed=4), random_split(x, y, seed=5)
    np.testing.assert_array_equal(found.x, again.x)
    assert not np.array_equal(found.x, other.x)
    if x.shape[1] > 20:
        assert not any(
            np.array_equal(np.sort(found.x[:, j]), np.sort(other.x[:, j])) for j in range(3)
        )
        return

    # Rows of the table, each at most as often as there.
    def rows(a):
        return {tuple(row): sum((a == row).all(1)) for row in a}

    both, whole = rows(np.concatenate([found.x, found.test_x])), rows(x)
    assert all(count <= whole[row] for row, count in both.items())


def test_another_table_is_refused():
    with pytest.raises(InputError, match="there is no table 'adult'"):
        real_table("adult")
