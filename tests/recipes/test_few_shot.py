"""A run that is loaded predicts what its own learner predicts; what is no such run is refused."""

import dataclasses
import json
import re
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from experiments import few_shot, mnist
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError, RunError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.base import QueryGrad, evaluate
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.few_shot import learner_of_images, net, tasks_of
from jaxdl.recipes.gradient_learners import maml
from jaxdl.recipes.loaded import load_run
from jaxdl.runs.config import flat, unflat
from jaxdl.runs.identity import load_config, record_config
from jaxdl.runs.run import RunFlags
from jaxdl.types import Batch, Episode
from tests import stored_run
from tests.fixtures.runs_0_1 import small_nets

FIXTURES = Path(__file__).parents[1] / "fixtures"
KEY = jax.random.key(0)
SUPPORT = Batch(jax.random.uniform(KEY, (5, 8, 16, 1)), jnp.arange(5))
QUERIES = jax.random.uniform(jax.random.key(1), (4, 8, 16, 1))


def predicted(learner, params, support, x, steps):
    @jax.jit
    def run(params):
        return learner.predict(learner.adapt(KEY, params, support, steps), x)

    return run(params)


def test_an_inner_loss_summed_over_classes_steps_so_many_times_as_far():
    def adapted(inner_loss, inner_lr):
        model = net((8, 16, 1), 5, filters=2, norm="batch")
        options = {"inner_lr": inner_lr, "inner_steps": 2, "inner_loss": inner_loss}
        learner = maml(model, cross_entropy, ways=5, **options)
        return jax.jit(lambda: learner.adapt(KEY, learner.init(KEY, SUPPORT.x), SUPPORT))()

    check = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(check, adapted("sum-over-classes", 0.1), adapted("mean", 0.5))
    first, other = (adapted("mean", lr)["Dense_0"]["bias"] for lr in (0.1, 0.5))
    assert not np.allclose(first, other)


def test_nets_are_those_of_the_images():
    """Without colours a mean over space before the head, with colours 2 x 2 places after pools."""
    for shape, inputs in (((28, 28, 1), 4), ((32, 32, 3), 16)):
        images = np.zeros((2, *shape), np.float32)
        init = net(shape, 5, filters=4, norm="batch").init
        assert jax.eval_shape(init, KEY, images)["Dense_0"]["kernel"].shape == (inputs, 5)
        init = net(shape, None, filters=4, norm="batch").init
        assert "Dense_0" not in jax.eval_shape(init, KEY, images)


@pytest.mark.parametrize(
    ("name", "replaced"),
    [("maml", True), ("maml_pp", True), ("es_maml", True), ("reptile", False)],
)
def test_statistics_of_the_support_set_keep_a_gradient_that_is_no_derivative(name, replaced):
    """Else the gradient of Reptile would become that of MAML."""
    fields = {"norm": "support", "filters": 2}
    config = with_learner(unflat(few_shot.Config, fields), name)
    grad = learner_of_images(flat(config)).grad
    assert isinstance(grad, QueryGrad) == replaced
    plain = learner_of_images(flat(dataclasses.replace(config, norm="batch"))).grad
    assert isinstance(plain, QueryGrad) == replaced


@pytest.mark.parametrize(
    ("seed", "fields"),
    [
        (0, {}),
        (1, {"norm": "support", "inner_loss": "sum-over-classes", "estimator": "first-order"}),
    ],
    ids=["plain", "changed"],
)
def test_a_run_of_few_shot_predicts_what_its_learner_does(seed, fields, tmp_path):
    learner, params = stored_run.of_few_shot(tmp_path, **fields)
    run = load_run(str(tmp_path), seed)
    expected, other = (predicted(learner, each, SUPPORT, QUERIES, 2) for each in params)
    expected, other = (expected, other) if seed == 0 else (other, expected)
    steps = run.config["test_inner_steps"] - 1
    found = predicted(run.learner, run.params, SUPPORT, QUERIES, steps)
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(found, other)
    assert run.config["norm"] == fields.get("norm", "batch")


def test_a_run_of_sinusoid_predicts_what_its_learner_does(tmp_path):
    learner, params = stored_run.of_sinusoid(tmp_path, inner_lr=0.01, inner_steps=2)
    run = load_run(tmp_path, seed=1)
    support, query = sinusoid(shots=5, queries=4)(KEY)
    expected = predicted(learner, params[1], support, query.x, None)
    found = predicted(run.learner, run.params, support, query.x, None)
    np.testing.assert_array_equal(found, expected)
    assert run.config["inner_steps"] == 2


def change(folder, **fields):
    """Rewrites fields of a config.yaml; None takes one out."""
    path = folder / "config.yaml"
    record = yaml.safe_load(path.read_text())
    config = {**record["config"], **fields}
    record["config"] = {name: value for name, value in config.items() if value is not None}
    path.write_text(yaml.safe_dump(record))


def test_runs_of_before_a_field_came_have_what_was_there_then(tmp_path):
    """The code's head, and its kernels of sine waves."""
    images, sines = tmp_path / "images", tmp_path / "sines"
    for folder in (images, sines):
        folder.mkdir()
    _, params = stored_run.of_few_shot(images, head="normal")
    change(images, head=None, init_from=None, init_except=None)
    run = load_run(images)
    assert run.config["head"] == "normal"
    jax.tree.map(np.testing.assert_array_equal, run.params, params[0])
    # The spread of new heads is what the field decides: 1, and not that of Xavier.
    heads = [run.learner.init(jax.random.key(i), SUPPORT.x)["Dense_0"]["kernel"] for i in range(9)]
    assert np.std(heads) > 0.8

    stored_run.of_sinusoid(sines, init="code")
    change(sines, init=None, init_from=None, init_except=None)
    run = load_run(sines)
    assert run.config["init"] == "code"
    kernel = run.learner.init(KEY, jnp.zeros((1, 1)))["Dense_1"]["kernel"]
    assert np.std(kernel) < 0.02


@pytest.mark.parametrize("experiment", ["few_shot", "sinusoid"])
def test_what_an_older_revision_stored_gives_the_numbers_of_its_result(experiment, tmp_path):
    with tarfile.open(FIXTURES / "runs_0_1.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    (folder,) = (tmp_path / "runs" / experiment).iterdir()
    expected = json.loads((folder / "result.json").read_text())["maml"][0]
    with small_nets():
        learner, params, config = load_run(folder)
    if experiment == "sinusoid":
        sample, loss, steps = sinusoid(shots=5, queries=5), mean_squared_error, 10
        expected = {"loss": expected["5-shot/10"]["mean"]}
        episodes = config["test_tasks"]
    else:
        config = load_config(folder, few_shot.Config)
        sample, loss = tasks_of(flat(config)).test, cross_entropy
        steps, episodes = config.test_inner_steps, config.test_episodes
    run = evaluate(learner, loss, sample, episodes=episodes, depths=(steps,))
    found = run(jax.random.key(few_shot.TEST_KEY), params)
    for name, values in found.items():
        np.testing.assert_allclose(np.mean(values), expected[name], rtol=1e-3)


# ---- what is refused


def test_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"there is no run in .*no config.yaml. Give the folder"):
        load_run(tmp_path / "none")
    with pytest.raises(InputError, match="there is no run in"):
        load_run(tmp_path)


def test_a_run_of_another_experiment(tmp_path):
    record_config(tmp_path, mnist.Config())
    with pytest.raises(InputError, match=r"another experiment.* load_run reads runs of few_shot"):
        load_run(tmp_path)


@pytest.fixture
def begun(tmp_path):
    """A run that has stored nothing yet."""
    config = stored_run.few_shot.Config(filters=2, run=RunFlags(runs_dir=tmp_path))
    record_config(tmp_path, config)
    return tmp_path


def test_a_run_that_kept_nothing(begun):
    with pytest.raises(RunError, match=r"there is no checkpoint in .*best"):
        load_run(begun)


def test_a_seed_that_the_run_has_not(begun):
    for seed in (1, -1):
        with pytest.raises(InputError, match=rf"has no `seed={seed}`: choose one from 0 to 0"):
            load_run(begun, seed=seed)


@pytest.mark.parametrize("ways", [0, -5, 2.5, True])
def test_a_number_of_classes_that_is_none(begun, ways):
    with pytest.raises(InputError, match=rf"`ways={ways}`: give the number of classes per task"):
        load_run(begun, ways=ways)


@pytest.mark.parametrize(
    "line",
    [
        *["filters: many", "filters: []", "norm: 3", "norm: layer", "inner_lr: null"],
        *["data: mnist", "test_ways: x", "test_inner_steps: x", "learner: 7"],
        *["ways: 0", "seeds: 0", "seeds: 1000000000000000000000000000000", "filters: 1048577"],
        *["inner_steps: 1048577", "test_ways: 0"],
    ],
)
def test_a_damaged_config(begun, line):
    path, (field, value) = begun / "config.yaml", line.split(": ")
    path.write_text(re.sub(rf"(?m)^  {field}: .*$", f"  {field}: {value}", path.read_text()))
    with pytest.raises(RunError, match=f"config.yaml is damaged: {field} is"):
        load_run(begun)


def test_a_net_that_does_not_fit_into_memory(begun):
    path = begun / "config.yaml"
    path.write_text(path.read_text().replace("filters: 2", "filters: 1000000"))
    with pytest.raises(InputError, match=r"optimiser's state need [\d,.]+ GiB"):
        load_run(begun)


def test_a_config_that_is_no_configuration(begun):
    (begun / "config.yaml").write_text("config: [1")
    with pytest.raises(RunError, match=r"config.yaml is damaged"):
        load_run(begun)


@pytest.mark.parametrize("norm", ["batch", "support"])
def test_a_learner_trains_by_its_own_loss_whatever_the_norm(norm):
    """RelationNet's is the squared error of its scores, if it is asked for."""
    base = {"learner": "relationnet", "data": "numbers", "ways": 5, "filters": 4, "head": "xavier"}
    episode = Episode(SUPPORT, Batch(QUERIES, jnp.arange(4)))

    def loss(score_loss):
        learner = learner_of_images({**base, "norm": norm, "score_loss": score_loss}, 64)
        params = learner.init(KEY, SUPPORT.x)
        return float(jax.jit(learner.grad)(KEY, 0, params, episode)[1]["loss"])

    assert loss("squared") < 1 < loss("cross-entropy")


def test_what_images_in_colour_and_other_data_do_not_read_is_refused():
    net((32, 32, 3), 5, filters=2, norm="batch", head="normal")  # of a run of before
    config = flat(few_shot.Config(split="vinyals"))
    with pytest.raises(InputError, match="`split=vinyals` is for Omniglot, and the data are"):
        tasks_of(config)


@pytest.mark.parametrize("pair", [("cifar_fs", "fc100"), ("fc100", "cifar_fs")])
def test_classes_that_training_saw_are_no_test(pair):
    with pytest.raises(InputError, match=f"`data={pair[0]}` trains on classes of CIFAR-100 that"):
        tasks_of(flat(few_shot.Config(data=pair[0], test_data=pair[1])))
