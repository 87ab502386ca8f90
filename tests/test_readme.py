"""What README.md shows works as it stands there."""

import jax
import numpy as np
import optax

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch
from tests import stored_run
from tests.readme import README, blocks, example


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
    code = next(block for block in blocks("python") if "def meta_sgd(" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_the_map_has_every_room_and_no_other():
    root = README.parent
    cells = [
        line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")
    ]
    named = {part.strip(" `/") for cell in cells for part in cell.split(",")}
    inside = {
        path.stem if path.is_file() else path.name for path in (root / "jaxdl").glob("[!_.]*")
    }
    missing = inside - {name.removesuffix(".py") for name in named} - {"errors", "py"}
    assert not missing
    for name in named:
        assert (root / "jaxdl" / name).exists() or (root / name).exists(), name
