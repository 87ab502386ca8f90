"""`TabularClassifier` by scikit-learn's own checks, on a run of two steps."""

from unittest import SkipTest

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

import jaxdl
from experiments import tabular
from jaxdl.errors import InputError
from jaxdl.runs.config import unflat
from jaxdl.runs.run import RunFlags, open_run
from tests.test_extras import block

SIZES = {"width": 4, "heads": 2, "layers": 1, "group": 2, "sizes": 1, "features": 10}
FEW = {"steps": 2, "tasks": 1, "shots": 12, "least_shots": 10, "queries": 2, "eval_every": 2}
X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.array(["b", "a", "c"] * 4)

OTHERS = {"check_classifiers_train"}
"""Checks of scikit-learn that fail. This one asks for an accuracy, and the net took 2 steps."""


def config_of(folder, **changes):
    flags = RunFlags(runs_dir=folder, name="run", log_every=2, devices=1)
    return unflat(tabular.Config, SIZES | FEW | {"validation_tasks": 2, "run": flags} | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has trained and is not judged."""
    config = config_of(tmp_path_factory.mktemp("runs"))
    with open_run("tabular", config) as run:
        tabular.train(config, run, tabular.learner_of_tables(tabular.flat(config)))
    return str(run.directory)


def test_it_fits_and_predicts(run):
    classifier = jaxdl.TabularClassifier(run, members=2).fit(X, Y)
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.n_features_in_ == 3
    found = classifier.predict_proba(X)
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found.sum(1), 1)
    assert classifier.predict(X).tolist() == classifier.classes_[found.argmax(1)].tolist()
    # A row is answered as if it were the only one, and rows have no order.
    np.testing.assert_array_equal(classifier.predict_proba(X[4:5]), found[4:5])
    turned = jaxdl.TabularClassifier(run, members=2).fit(X[::-1], Y[::-1])
    np.testing.assert_allclose(turned.predict_proba(X), found, atol=1e-6)
    void = X.copy()
    void[:, 1] = np.nan
    assert np.isfinite(classifier.fit(void, Y).predict_proba(void)).all()
    assert len(cross_val_score(classifier, X, Y, cv=2)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"run": None}, "needs a trained net. Give `run`"),
        ({"run": "runs/none"}, "there is no run in runs/none"),
        ({"seed": 1}, "has no `seed=1`: choose one from 0 to 0"),
        ({"members": 0}, "members=0 is no ensemble. Choose at least 1"),
    ],
)
def test_mistakes_are_refused(arguments, words, run):
    with pytest.raises(InputError, match=words):
        jaxdl.TabularClassifier(**{"run": run} | arguments).fit(X, Y)


def test_a_missing_package_is_missed_in_words(run, monkeypatch):
    classifier = jaxdl.TabularClassifier(run)
    block(monkeypatch, "sklearn")
    with pytest.raises(InputError, match=r'scikit-learn is not installed. .*"jaxdl\[data\]"'):
        classifier.fit(X, Y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(run):
    classifier = jaxdl.TabularClassifier(run, members=1)
    failed = {}
    for estimator, check in estimator_checks_generator(classifier):
        name = getattr(check, "func", check).__name__
        try:
            check(estimator)
        except SkipTest:  # for pandas, say
            continue
        except Exception as error:  # each check has errors of its own
            failed[name] = error
    assert failed.keys() == OTHERS, failed
