"""`TabularClassifier` by scikit-learn's own checks, on a run of two steps and on stored weights."""

import json
import pickle
import shutil
from unittest import SkipTest

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

import jaxdl
from experiments import tabular
from experiments.tables import retest, stored
from experiments.tables.rows import TABLES
from jaxdl.data.sets.real_tables import random_split, real_table
from jaxdl.errors import InputError, RunError
from jaxdl.recipes.tabular import classify, learner_of_tables, probabilities, roc_auc
from jaxdl.runs.config import flat, unflat
from jaxdl.runs.run import RunFlags, open_run
from jaxdl.train.loop import per_seed
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


@pytest.fixture
def weights(run, tmp_path):
    """The same net as a file of weights, with its configuration beside it."""
    jaxdl.export_weights(run, tmp_path / "net.npz")
    write_config(tmp_path)
    return tmp_path / "net.npz"


def write_config(folder, **changes):
    """What result.json of the run says of its configuration."""
    (folder / "net.json").write_text(json.dumps({"config": SIZES | {"classes": 10} | changes}))


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
    classifier.fit(X, Y)
    assert classifier.score(X, Y[:, None]) == classifier.score(X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.score(X, Y[:1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"run": None}, "needs a trained net. Give `run`, a directory or a file of weights"),
        ({"run": "runs/none"}, "there is no run in runs/none"),
        ({"seed": 1}, "has no `seed=1`: choose one from 0 to 0"),
        ({"members": 0}, "members=0 is no ensemble. Choose at least 1"),
    ],
)
def test_mistakes_are_refused(arguments, words, run):
    with pytest.raises(InputError, match=words):
        jaxdl.TabularClassifier(**{"run": run} | arguments).fit(X, Y)


def test_the_stored_weights_give_what_their_check_computes():
    """Equal probabilities; the AUC of the split is that of the stored result."""
    split = random_split(*real_table("wine"), seed=1, columns=20)
    file = stored.place("tabular", "tabular").weights
    classifier = jaxdl.TabularClassifier(file, random_state=1).fit(split.x, split.y)
    found = classifier.predict_proba(split.test_x)

    config = TABLES["tabular"].configuration(TABLES["tabular"].row("tabular"))
    learner = learner_of_tables(flat(config))
    params = per_seed(retest._params(learner, jnp.zeros((2, config.features)), file))[0]
    answer = probabilities(learner), params, flat(config)
    expected = classify(*answer, *split[:3], seed=1, members=config.members)
    np.testing.assert_array_equal(found, expected / expected.sum(1, keepdims=True))

    scores = stored.result_of("tabular", "tabular")["scores"]["wine"]["tabular"]
    np.testing.assert_allclose(roc_auc(split.test_y, found), scores["auc"][0][1], atol=1e-3)


@pytest.mark.parametrize("form", [str, lambda path: path], ids=["text", "path"])
def test_a_file_answers_as_its_run(form, run, weights):
    expected = jaxdl.TabularClassifier(run, members=2).fit(X, Y).predict_proba(X)
    classifier = jaxdl.TabularClassifier(form(weights), members=2).fit(X, Y)
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    np.testing.assert_array_equal(copy.fit(X, Y).predict_proba(X), expected)
    # What is fitted holds the net, so it needs no file.
    kept = pickle.dumps(classifier)
    weights.unlink()
    np.testing.assert_array_equal(pickle.loads(kept).predict_proba(X), expected)


def other_names(folder):
    few_shot = stored.place("numbers-5way-1shot", "protonet").weights
    shutil.copy(few_shot, folder / "net.npz")


def no_arrays_of_jaxdl(folder):
    np.savez(folder / "net.npz", w=np.ones(2))


def damaged(folder):
    (folder / "net.npz").write_bytes(b"text")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "net.npz").unlink(), r"net\.npz: there is no such file or run"),
        (damaged, r"net\.npz is no \.npz file of numbers: "),
        (no_arrays_of_jaxdl, r"net\.npz holds no weights of jaxdl: .*, and it has w\. Give"),
        (
            lambda folder: (folder / "net.json").unlink(),
            r"no configuration beside it: there is no net\.json\. Copy the result\.json of its run",
        ),
        (
            lambda folder: write_config(folder, group=None),
            r"net\.json has no configuration of tabular: the whole number `group` is missing\. ",
        ),
        (
            lambda folder: (folder / "net.json").write_text('{"config": 3}'),
            r"has no configuration of tabular: the whole number `width` is missing",
        ),
        (
            lambda folder: write_config(folder, classes=3),
            r"net\.npz is of another net than net\.json beside it: params/answer/bias is \(10,\) in"
            r" the weights and \(3,\) by the configuration\. Take both from one run",
        ),
        (
            lambda folder: write_config(folder, layers=2),
            r"params/blocks_1/across_0/bias is absent in the weights and \(4,\) by the",
        ),
        (other_names, r"of another net than net\.json beside it: params/\S+ is \(.*absent by the"),
        (
            lambda folder: write_config(folder, heads=3),
            "a tabular transformer cannot have width=4, heads=3",
        ),
    ],
)
def test_files_of_no_net_are_refused(spoil, words, weights):
    spoil(weights.parent)
    with pytest.raises(InputError, match=words):
        jaxdl.TabularClassifier(weights).fit(X, Y)


def test_another_file_than_weights_is_refused(weights):
    with pytest.raises(InputError, match=r"net\.json is no file of weights\. Give a \.npz"):
        jaxdl.TabularClassifier(weights.with_suffix(".json")).fit(X, Y)


def test_a_net_of_another_experiment_is_refused():
    file = stored.place("numbers-5way-1shot", "protonet").weights
    with pytest.raises(InputError, match=r"protonet\.json has no configuration of tabular"):
        jaxdl.TabularClassifier(file).fit(X, Y)


@pytest.mark.parametrize("size", [10**15, 10**7, 0, -3])
def test_a_size_that_no_net_has_is_damage(weights, size):
    for name in ("features", "layers", "width"):
        write_config(weights.parent, **{name: size})
        with pytest.raises(RunError, match=rf"net\.json is damaged: {name} is {size}\. Correct"):
            jaxdl.TabularClassifier(weights).fit(X, Y)


def test_a_damaged_configuration_is_damage(weights):
    weights.with_suffix(".json").write_text("{")
    with pytest.raises(RunError, match=r"net\.json cannot be read"):
        jaxdl.TabularClassifier(weights).fit(X, Y)


@pytest.mark.parametrize("seed", [1, -1])
def test_a_file_has_one_seed(seed, weights):
    with pytest.raises(InputError, match=rf"net\.npz has no `seed={seed}`, .* one net\. Choose"):
        jaxdl.TabularClassifier(weights, seed=seed).fit(X, Y)


def test_a_run_may_be_called_as_a_file(run, tmp_path):
    shutil.copytree(run, tmp_path / "net.npz")
    expected = jaxdl.TabularClassifier(run, members=1).fit(X, Y).predict_proba(X)
    found = jaxdl.TabularClassifier(tmp_path / "net.npz", members=1).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


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
