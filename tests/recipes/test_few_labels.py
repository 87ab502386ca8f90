"""Training on subsets of a data set: what each run learns from, and what is refused."""

import jax
import numpy as np
import pytest

from jaxdl.data.subsets import cells
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.recipes.few_labels import (
    Training,
    check_counts,
    check_rates,
    check_sizes,
    fit,
    fresh,
    learn,
    problem_of,
    seen,
)
from jaxdl.report.by_count import count_names, labelled
from jaxdl.runs.run import open_run
from jaxdl.train.evaluation import measure_subsets
from jaxdl.train.streams import run_keys
from tests import tiny_run


def blobs(spread, classes=3, each=40):
    """Images `[n, 2, 2, 1]` in clouds around one corner a class; half train, the rest judged."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    images = draw.normal(40, spread, (len(labels), 2, 2, 1))
    images.reshape(len(labels), 4)[np.arange(len(labels)), labels] += 150
    images = np.clip(images, 0, 255).astype(np.uint8)
    return problem_of(images, labels, (images, labels), (each // 2, each // 4))


IMAGES, LABELS = np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2


def problem_with(labels, of_source=LABELS):
    return problem_of(IMAGES, labels, (IMAGES, of_source), (1, 1))


def test_a_problem_of_bytes_is_that_of_integers():
    one, two = (problem_with(LABELS.astype(dtype)) for dtype in (np.uint8, np.int64))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
def test_each_cell_learns_from_its_own_count_with_its_own_rate(tmp_path):
    """A dense net learns one example a class by heart and all of them less well; the smallest rate
    of all leaves the initialisation as it is."""
    problem, training = blobs(spread=80), Training(run_keys(0, 2), 20, 100, 1)
    model, runs = mlp((16, 3)), cells(training.keys, (1, 0), (1e-9, 0.01))
    start = fresh(problem, model, training.keys)
    with open_run("trial", tiny_run.config(tmp_path, steps=300)) as run:
        params = fit(run, problem, model, runs, start, training)
    learnt = measure_subsets(without_stats(model), cross_entropy, seen)
    own = learnt(params, {}, problem.train, runs.subsets)["accuracy"]
    own = np.reshape(own, (2, 2, 2))  # rates, counts, seeds
    assert (own[1, 0] == 1).all()
    assert (own[1, 1] < 1).all()
    assert (own[1, 1] > 0.6).all()
    moved = [
        np.abs(leaf[:4] - np.tile(first, (2, *[1] * (first.ndim - 1)))).max()
        for leaf, first in zip(jax.tree.leaves(params), jax.tree.leaves(start), strict=True)
    ]
    assert max(moved) < 1e-5


def test_validation_examples_decide_and_test_examples_nothing(tmp_path):
    """On the test examples, whose labels are wrong here, every other choice would be better."""
    problem, training = blobs(spread=20), Training(run_keys(0, 2), 20, 2, 1)
    images, labels = problem.test
    problem = problem._replace(test=(images, (labels + 1) % 3))
    model = mlp((16, 3))
    start = fresh(problem, model, training.keys)
    options = {"counts": (5, 0), "rates": (1e-9, 0.03)}
    with open_run("trial", tiny_run.config(tmp_path, steps=60, log_every=2)) as run:
        found = learn(run, problem, model, start, training, **options)
    assert found["rates"] == [0.03, 0.03]
    assert np.min(found["validation"]) > 0.9
    assert np.max(found["test"]) < 0.1
    assert np.shape(found["train"]) == np.shape(found["steps"]) == (2, 2)


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda: check_counts((5, 1)), "`counts=5 1`: give two rising numbers"),
        (lambda: check_counts((0, 1)), "`counts=0 1`"),
        (lambda: check_counts((0,)), "`counts=0`:"),
        (lambda: check_rates((0.1, float("nan"))), "`rates="),
        (lambda: check_rates(()), "`rates="),
        (lambda: check_sizes(blobs(1), (1, 21), "blobs"), "a class of blobs has only 20 training"),
        (lambda: problem_with(LABELS.astype(float)), "labels are float64, but must be integers"),
        (lambda: problem_with(LABELS, LABELS - 1), "example 0 has the label -1"),
        (lambda: problem_with(LABELS[:3]), "6 examples and 3 labels"),
        (lambda: problem_with(2 * LABELS), "no example has the label 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(attempt, says):
    with pytest.raises(InputError, match=says):
        attempt()


def test_counts_in_words():
    assert [labelled(count) for count in (1, 20, 0)] == ["1 example", "20 examples", "all examples"]
    assert count_names((1, 0), (1.0, 5923.4)) == ["1", "5,923 (all)"]
