"""Learners by name and by file: what they are built on, and what a run of them stores."""

import dataclasses
import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import few_shot, regression_1d, regression_2d, sinusoid
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.errors import InputError, RunError
from jaxdl.losses import cross_entropy
from jaxdl.meta.base import evaluate
from jaxdl.meta.protonet import protonet
from jaxdl.models.mlp import mlp
from jaxdl.recipes import gradient_learners, labelled_learners, learners
from jaxdl.recipes.choice import build, find, from_arguments, with_learner
from jaxdl.recipes.few_shot import learner_of_images, tasks_of
from jaxdl.recipes.loaded import load_run
from jaxdl.runs.config import RunFlags, Seeds, flat
from jaxdl.runs.identity import directory, load_config
from jaxdl.train.streams import run_keys
from jaxdl.types import Batch, Embedding, Model, TransferLearner

KEY = jax.random.key(0)
MINE = '''
import jax
from scales import LEAST

import jaxdl


def scaled(model: jaxdl.Embedding, loss: jaxdl.LossFn, *, ways: int, scale: float = 2.0):
    """ProtoNet with scaled distances."""
    learner = jaxdl.protonet(model, loss, ways=ways)

    def predict(adapted, x, **options):
        return max(scale, LEAST) * learner.predict(adapted, x, **options)

    grad = jaxdl.through_adaptation(learner.adapt, predict, loss)
    return learner._replace(predict=predict, grad=grad)
'''


def write_mine(place):
    folder = place / "own"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "scales.py").write_text("LEAST = 0.0\n")
    return f"{folder}/mine.py:scaled"


@pytest.fixture
def mine(tmp_path):
    return write_mine(tmp_path)


def tiny(folder, **fields):
    run = RunFlags(runs_dir=folder, log_every=2, devices=1)
    values = {"data": "digits", "ways": 2, "filters": 2, "tasks": 2, "queries": 2, "steps": 2}
    values |= {"test_queries": 2, "eval_every": 2, "eval_episodes": 2, "test_episodes": 6}
    values |= {"pretraining_steps": 0, "random": Seeds(seeds=2)}
    return few_shot.Config(**{**values, **fields}, run=run)


def the_run(folder):
    (found,) = (folder / "few_shot").iterdir()
    return found


# ---- what a learner is built on


def outputs(net, x=None):
    x = jnp.ones((2, 3)) if x is None else x
    return net.apply(net.init(KEY, x), x).shape[1]


def nets(outputs):
    return mlp((7,) if outputs is None else (7, outputs))


def test_a_model_has_an_output_for_each_class_and_an_embedding_has_features():
    found = []

    def on_model(model: Model, loss, *, ways: int):
        found.append(outputs(model))
        return protonet(model, loss, ways=ways)

    def on_embedding(model: Embedding, loss, *, ways: int):
        found.append(outputs(model))
        return protonet(model, loss, ways=ways)

    for make in (on_model, on_embedding):
        build(make, nets, cross_entropy, ways=4, classes=None, own={})
    assert found == [4, 7]


def test_a_learner_of_labelled_examples_gets_the_number_of_training_classes():
    options = {"ways": 2, "classes": 9, "own": {}}
    learner = build(labelled_learners.finetune, nets, cross_entropy, **options)
    assert isinstance(learner, TransferLearner)
    assert learner.init(KEY, jnp.ones((2, 3))).kernel.shape == (7, 9)


def test_what_returns_no_learner_is_refused():
    def nothing(model, loss, *, ways: int):
        return None

    with pytest.raises(InputError, match=r"nothing returned NoneType. Return a MetaLearner, or a"):
        build(nothing, nets, cross_entropy, ways=2, classes=None, own={})


# ---- what is chosen


def test_the_names_are_those_of_the_table():
    assert find("maml").make is gradient_learners.maml
    assert find("maml", learners.REGRESSORS).make is gradient_learners.maml_of_curves
    tables = (
        (few_shot, learners.LEARNERS),
        (sinusoid, learners.REGRESSORS),
        (regression_1d, learners.PROCESSES),
        (regression_2d, learners.COMPLETERS),
    )
    for experiment, table in tables:
        source = " ".join(inspect.getsource(experiment.Config).split())
        told = source.partition('"""Learner: ')[2].partition(" or path/to")[0]
        assert [name.strip() for name in told.strip(" ,").split(",")] == list(table)
    words = f"`learner=mamml`: choose among {' '.join(learners.LEARNERS)}, or give"
    with pytest.raises(InputError, match=words):
        find("mamml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def protonet(model, loss, *, ways): ...", "the name protonet is taken"),
        ("def pretrained(model, loss, *, ways): ...", "the name pretrained is taken"),
        (
            "def own(model, *, ways): ...",
            r"has no second argument for the loss. Add",
        ),
        (
            "def own(model, loss, ways): ...",
            r"own takes ways by position. Write `\*,`",
        ),
        ("def own(model, loss): ...", r"but own has no argument ways. Add `ways: int` after `\*,`"),
        (
            "def own(net, loss, *, ways): ...",
            "net of own does not say which net it",
        ),
        ("def own(net: int, loss, *, ways): ...", "net of own does not say which net it is"),
    ],
)
def test_own_functions_that_are_no_learner(text, words, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        find(f"{path}:{text.split()[1].partition('(')[0]}")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            "lr: float = 1.0",
            "--lr is a flag of the experiment already. Rename the argument lr",
        ),
        ("rate: 'jaxdl.Modl' = 1.0", "the annotations of own cannot be read .* Correct them"),
        ("rate: float", "the argument rate of own has no default"),
    ],
)
def test_own_arguments_that_cannot_be_flags(argument, words, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"import jaxdl\ndef own(m: jaxdl.Model, loss, *, ways: int, {argument}): ...")
    with pytest.raises(InputError, match=words):
        with_learner(few_shot.Config(), f"{path}:own")


def test_the_configuration_has_the_learner_s_own_arguments(mine):
    config = with_learner(few_shot.Config(), mine, scale=3.0)
    assert flat(config)["scale"] == 3.0
    assert "inner_lr" not in flat(config)
    assert isinstance(config, few_shot.Config)
    # Inner steps of MAML mean nothing to it.
    assert (few_shot.Config().test_inner_steps, config.test_inner_steps) == (3, None)
    with pytest.raises(InputError, match=r"has no argument inner_lr. Choose among scale"):
        with_learner(few_shot.Config(), mine, inner_lr=0.1)


def test_the_flag_chooses_and_a_preset_keeps_its_own_values(mine):
    preset = few_shot.PRESETS["omniglot-20way-1shot"]
    assert from_arguments(preset, []).method == preset.method
    assert from_arguments(preset, ["--learner", "maml"]) == from_arguments(preset, [])
    for words in (["--learner", mine], [f"--learner={mine}", "--scale", "3"]):
        found = from_arguments(preset, words)
        assert (found.learner, found.ways) == (mine, 20)
        assert dataclasses.asdict(found.method) == {"scale": 2.0}


def test_a_flag_of_another_learner_is_told():
    words = r"--inner-lr is a flag of the learner maml, and protonet has --inner-dropout. Leave it"
    with pytest.raises(InputError, match=words):
        from_arguments(few_shot.Config(), ["--learner", "protonet", "--inner-lr=0.1"])


def test_maml_has_the_identity_of_before():
    """As without a choice, whose digests stand in test_identity."""
    preset = few_shot.PRESETS["omniglot-20way-5shot"]
    assert directory("few_shot", with_learner(preset, "maml")) == directory("few_shot", preset)


def test_a_form_of_the_same_learner_keeps_the_values_of_a_preset():
    preset = few_shot.PRESETS["omniglot-20way-1shot"]
    kept, asked = with_learner(preset, "fomaml"), with_learner(preset, "fomaml", inner_lr=0.3)
    assert (preset.method.inner_steps, preset.method.inner_lr) == (5, 0.1)
    assert vars(kept.method) == {"inner_steps": 5, "inner_lr": 0.1, "inner_loss": "mean"}
    assert kept.test_inner_steps == preset.test_inner_steps is not None
    assert (asked.method.inner_steps, asked.method.inner_lr) == (5, 0.3)
    back = with_learner(kept, "maml")
    assert flat(back) == flat(preset)
    other = with_learner(preset, "anil")
    assert (other.method.inner_steps, other.test_inner_steps) == (1, None)


# ---- whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of an own learner: its file, the folder of runs, configuration and result."""
    folder = tmp_path_factory.mktemp("trained")
    name = write_mine(folder)
    config = with_learner(tiny(folder), name, scale=3.0)
    return name, folder, config, few_shot.main(config)


def test_a_run_of_an_own_learner_is_its_own(trained, capsys):
    _, folder, config, result = trained
    run = the_run(folder)
    assert run.name.startswith("digits-2way-1shot-scaled-")
    assert set(result) >= {"scaled", "nearest_centroid"}
    assert not set(result) & {"maml", "pretrained"}
    assert (run / "learner" / "scales.py").read_text() == "LEAST = 0.0\n"
    assert few_shot.main(config) == result  # the same command reprints
    assert "| scaled " in capsys.readouterr().out
    # Plain MAML with the same flags is another run.
    assert directory("few_shot", tiny(folder), "digits-2way-1shot").name not in run.name


@pytest.mark.slow
def test_a_run_of_an_own_learner_goes_on(trained, tmp_path):
    _, folder, config, _ = trained
    shutil.copytree(folder / "few_shot", tmp_path / "few_shot")
    run = dataclasses.replace(config.run, runs_dir=tmp_path)
    longer = few_shot.main(dataclasses.replace(config, steps=4, run=run))
    assert longer["run"]["steps"] == 4
    lines = (the_run(tmp_path) / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"train"' in line]
    assert steps == [2, 4]


def test_another_text_of_a_module_beside_it_is_another_run(trained, tmp_path):
    _, folder, config, _ = trained
    name = write_mine(tmp_path)
    contents = find(name).contents
    assert contents == find(trained[0]).contents  # the place does not matter
    (tmp_path / "own" / "scales.py").write_text("LEAST = 9.0\n")
    changed = with_learner(config, name, scale=3.0)
    before = directory("few_shot", config, contents=contents)
    assert directory("few_shot", changed, contents=find(name).contents) != before
    run = dataclasses.replace(config.run, name=the_run(folder).name)
    with pytest.raises(InputError, match="made with another content of `learner="):
        few_shot.main(dataclasses.replace(changed, run=run))


def test_untrained_is_the_learner_with_the_first_parameters_of_each_seed(trained):
    _, folder, config, result = trained
    tasks = tasks_of(flat(config))
    learner = learner_of_images(flat(config))
    score = evaluate(learner, cross_entropy, tasks.test, episodes=6, chunk=1)
    for key, found in zip(run_keys(0, 2), result["untrained"], strict=True):
        values = score(jax.random.key(few_shot.TEST_KEY), learner.init(key, tasks.train_x))
        np.testing.assert_allclose(values["loss"].mean(), found["loss"], rtol=1e-5)
        np.testing.assert_allclose(values["accuracy"].mean(), found["accuracy"], rtol=1e-5)
    with np.load(the_run(folder) / "episodes.npz") as stored:
        assert stored["untrained/loss"].shape == (2, 6)
    losses = [[each["loss"] for each in result[name]] for name in ("untrained", "scaled")]
    assert np.unique(losses).size == 4  # seeds differ, and training changes both


def test_the_metrics_of_each_episode_are_those_of_the_result(trained):
    _, folder, _, result = trained
    with np.load(the_run(folder) / "episodes.npz") as stored:
        accuracies = stored["scaled/accuracy"]
        assert stored["nearest_centroid/loss"].shape == (1, 6)
    assert accuracies.shape == (2, 6)
    found = [each["accuracy"] for each in result["scaled"]]
    np.testing.assert_allclose(accuracies.mean(axis=1), found, rtol=1e-6)


def test_what_is_loaded_predicts_as_it_was_trained_though_the_file_is_gone(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(the_run(trained[1]), run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(trained[1]), "/no/longer/there"))
    learner, params, fields = load_run(run, seed=1)
    assert fields["scale"] == 3.0
    support = Batch(jax.random.uniform(KEY, (2, 8, 8, 1)), jnp.arange(2))
    x = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    plain = learner_of_images(flat(with_learner(tiny(tmp_path), "protonet")))

    def logits(learner):
        return learner.predict(learner.adapt(KEY, params, support), x)

    np.testing.assert_allclose(logits(learner), 3 * logits(plain), rtol=1e-5)

    (run / "learner" / "scales.py").write_text("LEAST = 9.0\n")
    with pytest.raises(RunError, match="learner is damaged: it is not the code that trained"):
        load_run(run)


@pytest.mark.slow
def test_a_learner_of_labelled_examples_trains_and_is_loaded(tmp_path):
    config = with_learner(tiny(tmp_path, batch=4), "finetune", inner_steps=1)
    result = few_shot.main(config)
    assert len(result["finetune"]) == 2
    learner, params, _ = load_run(the_run(tmp_path))
    assert isinstance(learner, TransferLearner)
    assert params.kernel.shape[1] == len(digits_few_shot("train")[2])
    x = jax.random.uniform(KEY, (2, 8, 8, 1))
    adapted = jax.jit(learner.adapt)(KEY, params, Batch(x, jnp.arange(2)))
    assert learner.predict(adapted, x).shape == (2, 2)


@pytest.mark.slow
def test_test_tasks_have_ways_shots_and_data_of_their_own(tmp_path, capsys):
    fields = {"ways": 4, "test_ways": 2, "test_shots": 3, "test_data": "numbers"}
    config = with_learner(tiny(tmp_path, **fields), "protonet")
    few_shot.main(config)
    assert "digits 4-way 1-shot, tested on numbers 2-way 3-shot" in capsys.readouterr().out
    with np.load(the_run(tmp_path) / "episodes.npz") as stored:
        hits = stored["protonet/accuracy"] * 2 * 2  # ways, test queries
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-5)


@pytest.mark.parametrize("fields", [{"test_ways": 3}, {"test_ways": 3, "test_data": "numbers"}])
def test_a_head_for_other_ways_is_refused(fields, tmp_path):
    with pytest.raises(InputError, match="depend on the number of ways or on the shape of the"):
        few_shot.main(tiny(tmp_path, **fields))
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.slow
def test_own_learners_of_sine_waves(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import optax\nimport jaxdl\n"
        "def own(model: jaxdl.Model, loss: jaxdl.LossFn, *, ways: int, rate: float = 0.01):\n"
        "    return jaxdl.maml(model, loss, tx=optax.sgd(rate), steps=1)\n"
    )
    run = RunFlags(runs_dir=tmp_path, devices=1, log_every=2)
    config = sinusoid.Config(steps=2, tasks=2, shots=2, test_tasks=2, run=run)
    maml = with_learner(config, "maml", learners.REGRESSORS, inner_lr=0.01)
    own = with_learner(config, f"{path}:own", learners.REGRESSORS)
    expected, found = sinusoid.main(maml), sinusoid.main(own)
    assert found["own"] == json.loads(json.dumps(expected["maml"]))
    (folder,) = (tmp_path / "sinusoid").glob("own-*")
    assert load_run(folder).config["rate"] == 0.01
    assert load_config(folder, type(own)).method.rate == 0.01
