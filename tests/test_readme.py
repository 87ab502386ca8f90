"""What README.md and the guide show works as it stands there."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import few_shot
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.few_shot import learner_of_images
from jaxdl.runs.config import flat, unflat
from jaxdl.types import Batch
from tests import stored_run
from tests.readme import GUIDE, README, ROOT, blocks, example


def run_block(name):
    names = {}
    exec(next(block for block in blocks("python") if f"def {name}(" in block), names)
    return names[name]


def test_training_from_own_arrays():
    """Eight classes, each a bright square at a place of its own: learned in a few steps."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (8, 10, 16, 16, 1)).astype(np.uint8)
    for label in range(8):
        row, column = divmod(label, 4)
        images[label, :, 8 * row : 8 * row + 8, 4 * column : 4 * column + 4] += 150
    labels = np.repeat(np.arange(8), 10)
    images = images.reshape(80, 16, 16, 1)
    found = run_block("train")(images, labels, steps=4, seeds=1)
    assert found.mean > 0.5
    assert found.over == "1 seed"


def test_the_own_learner_is_one_of_the_command_line(tmp_path):
    """Its flag is parsed, its net gives features, and its logits are a multiple of ProtoNet's."""
    code = next(block for block in blocks("python") if "def sharper(" in block)
    (tmp_path / "mine.py").write_text(code)
    name = f"{tmp_path}/mine.py:sharper"
    config = with_learner(unflat(few_shot.Config, {"filters": 2}), name, factor=0.5)
    x, y = np.random.default_rng(0).random((5, 8, 16, 1), np.float32), np.arange(5)
    found = []
    for each in (config, with_learner(config, "protonet")):
        learner = learner_of_images(flat(each))
        params = learner.init(jax.random.key(0), x)
        found.append(learner.predict(learner.adapt(None, params, Batch(x, y)), x))
    np.testing.assert_allclose(found[0], 0.5 * found[1], rtol=1e-6)


def test_training_by_hand(capsys):
    sample = sinusoid(shots=5, queries=5)
    learner = maml(mlp((4, 1)), with_accuracy, tx=optax.sgd(0.01), steps=1)
    found = run_block("train_by_hand")(learner, sample, optax.adam(1e-3), steps=3, seeds=2)
    assert len(found) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 ")


def with_accuracy(prediction, target, weight=None):
    loss, metrics = mean_squared_error(prediction, target, weight)
    return loss, {**metrics, "accuracy": -loss}


def test_a_stored_run_classifies(tmp_path):
    """By its own learner, with as many inner steps as it was tested with."""
    learner, params = stored_run.of_few_shot(tmp_path)
    images = np.random.default_rng(0).random((9, 8, 16, 1), np.float32)
    support = Batch(images[:5], np.arange(5))
    found = run_block("classify")(tmp_path, *support[:2], images[5:])
    adapted = learner.adapt(jax.random.key(0), params[0], support, 3)
    np.testing.assert_array_equal(found, learner.predict(adapted, images[5:]).argmax(axis=1))
    assert len(found) == 4


def test_the_new_algorithm_fits_on_a_screen():
    example()
    code = next(block for block in blocks("python") if "def maml_with_rates(" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_the_new_algorithm_begins_as_maml_and_learns_each_rate(key):
    model, episode = mlp((3, 1)), jax.jit(sinusoid(shots=4, queries=4))(key)
    options = {"steps": 2, "inner_lr": 0.01}
    ours = example()["maml_with_rates"](model, mean_squared_error, **options)
    peer = maml(model, mean_squared_error, tx=optax.sgd(0.01), steps=2)
    start, rates = jax.jit(ours.init)(key, episode.support.x)
    grads, expected = (
        jax.jit(learner.grad)(key, 0, given, episode)[0]
        for learner, given in ((ours, (start, rates)), (peer, start))
    )
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, grads[0], expected)
    assert all(leaf.shape == () and leaf != 0 for leaf in jax.tree.leaves(grads[1]))
    # An array whose rate is 0 stays.
    rates["Dense_0"]["kernel"] = jnp.float32(0)
    adapted = jax.jit(ours.adapt)(key, (start, rates), episode.support)
    stays = jax.tree.map(jnp.array_equal, adapted, start)
    assert jax.tree.leaves(stays).count(True) == 1
    assert stays["Dense_0"]["kernel"]


def test_the_map_has_every_room_and_no_other():
    cells = [
        line.split("|")[1]
        for line in GUIDE.read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]
    named = {part.strip(" `/") for cell in cells for part in cell.split(",")}
    inside = {
        path.stem if path.is_file() else path.name for path in (ROOT / "jaxdl").glob("[!_.]*")
    }
    missing = inside - {name.removesuffix(".py") for name in named} - {"errors", "py"}
    assert not missing
    for name in named:
        assert (ROOT / "jaxdl" / name).exists() or (ROOT / name).exists(), name


def test_the_readme_is_one_page():
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_the_table_names_files_and_experiments_that_are_there():
    """And each experiment stands in it."""
    rows = [line.split("|")[1:-1] for line in README.read_text("utf-8").splitlines() if "`" in line]
    rows = [row for row in rows if len(row) == 5 and "scripts/run" not in row[3]]
    assert len(rows) > 15
    there = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
    named = set()
    for _, _, files, commands, _ in rows:
        first, *others = re.findall("`(.*?)`", files)
        assert (ROOT / "jaxdl" / first).exists(), first
        for other in others:
            folder = (ROOT / "jaxdl" / first).parent
            assert (folder / other).exists() or (ROOT / "jaxdl" / other).exists(), other
        named |= {command.split()[0] for command in re.findall("`(.*?)`", commands)}
    assert named == there


def test_links_lead_to_files():
    for page in (README, GUIDE, *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
