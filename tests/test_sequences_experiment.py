"""The sequences experiment on tiny sizes: it learns, resumes, reprints, draws, and refuses."""

import numpy as np
import pytest

from experiments import long_memory, sequences
from jaxdl.data.sets import images
from jaxdl.data.sets.images import ImageData
from jaxdl.errors import InputError
from jaxdl.recipes import cells
from jaxdl.runs.cli import command_line
from jaxdl.runs.config import RunFlags, flat, unflat
from jaxdl.runs.run import Run

pytestmark = pytest.mark.usefixtures("compiled_once")


def made_up(data, split, *, data_dir=None):
    """Each class one bright row in noise."""
    rng = np.random.default_rng(split == "test")
    labels = np.arange(200 if split == "train" else 50, dtype=np.int32) % 10
    pixels = rng.integers(0, 60, (len(labels), 28, 28, 1))
    pixels[np.arange(len(labels)), 2 * labels] += 150
    return ImageData(pixels.astype(np.uint8), labels, tuple("0123456789"), np.zeros(1), np.ones(1))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch):
    monkeypatch.setattr(images, "image_arrays", made_up)


def config_of(preset, folder, **changes):
    experiment = sequences if preset == "mnist-rows" else long_memory
    flags = {"runs_dir": folder, "name": "run", "log_every": 5, "devices": 1}
    small = {"steps": 10, "batch": 8, "hidden": 8, "eval_every": 5, "validation": 20}
    if experiment is long_memory:
        small |= {"test": 20, "length": 6}
    fields = {**flat(experiment.PRESETS[preset]), **small, **changes, "run": RunFlags(**flags)}
    return unflat(experiment.Config, fields)


def test_rows_are_learnt_judged_drawn_and_reprinted(tmp_path, capsys):
    size = {"steps": 300, "hidden": 32, "lr": 0.01, "batch": 32, "seeds": 2}
    config = config_of("mnist-rows", tmp_path, cell=("gru",), **size)
    result = sequences.main(config)
    first = capsys.readouterr().out
    accuracy = result["cells"]["gru"]["accuracy"]
    assert min(accuracy["values"]) > 0.5  # by chance 0.1
    assert result["test_sequences"] == 50
    for name in ("learning_curve", "sample"):
        assert (tmp_path / "sequences" / "run" / f"{name}.png").stat().st_size > 10_000
    assert sequences.main(config) == result
    assert capsys.readouterr().out.splitlines()[-6:] == first.splitlines()[-6:]
    assert f"{100 * accuracy['mean']:.2f}" in first
    assert "accuracy in %, ± 95 % over seeds" in first
    assert "± over seeds by Student's t" in first


@pytest.mark.slow
def test_all_cells_run_beside_one_another_on_what_needs_memory(tmp_path, capsys):
    result = long_memory.main(config_of("copy", tmp_path))
    assert list(result["cells"]) == ["lstm", "gru", "rnn"]
    losses = [found["loss"]["mean"] for found in result["cells"].values()]
    assert len(set(losses)) == 3
    assert all(found["solved_at"] == [None] for found in result["cells"].values())
    assert "never" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_made_longer_equals_one_that_never_stopped(tmp_path, monkeypatch, capsys):
    whole = long_memory.main(config_of("adding", tmp_path / "whole", cell=("rnn",)))
    assert "adding 6, test" in capsys.readouterr().out
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    long_memory.main(config_of("adding", tmp_path / "parts", cell=("rnn",), steps=5))
    longer = long_memory.main(config_of("adding", tmp_path / "parts", cell=("rnn",)))
    assert longer["cells"] == whole["cells"]
    lines = [
        (tmp_path / name / "long_memory/run/rnn/metrics.jsonl").read_text()
        for name in ("whole", "parts")
    ]
    assert lines[0] == lines[1]


def test_solved_at_is_the_first_validation_below_a_tenth_of_the_baseline():
    class Lines:
        def metrics(self, split):
            assert split == "validation"
            loss = np.array([[1.0, 1.0], [0.05, 0.3], [0.2, 0.2], [0.01, 0.11]])
            return {"step": np.array([5, 10, 15, 20]), "loss": loss}

    task = cells.Task(*[None] * 7, baseline=1.0)
    assert cells.solved_at(Lines(), task) == [10, None]


def test_recall_counts_only_the_symbols_to_be_said_again():
    target = np.full((2, 15), 8, np.int32)
    target[:, -10:] = 3
    prediction = np.zeros((2, 15, 9), np.float32)
    prediction[:, :, 8] = 1
    prediction[0, -10:, 3] = 2
    assert long_memory.recall(prediction, target)[1]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        ("adding", {"cell": ()}, "`cell=`: give at least one name"),
        ("adding", {"cell": ("gru", "gru")}, "`cell=gru gru`: .* each name once"),
        ("adding", {"hidden": 0}, "`hidden=0`"),
        ("adding", {"length": 1}, "`length=1`"),
        ("adding", {"validation": 0}, "`validation=0`: choose at least 1"),
        ("copy", {"eval_every": 7}, "`eval_every=7` must be a multiple of `log_every=5`"),
        ("mnist-rows", {"seed": 1_000_001}, "`seed=1000001`: choose at most"),
        ("mnist-rows", {"validation": 200}, "`validation=200` of 200 images: choose 0 to 199"),
    ],
)
def test_mistakes_are_refused(preset, changes, words, tmp_path):
    config = config_of(preset, tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        (sequences if preset == "mnist-rows" else long_memory).main(config)


@pytest.mark.parametrize("flags", ["--task adding", "--preset=adding", "--preset copy"])
def test_the_old_command_names_the_new_experiment(flags, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sequences.py", *flags.split()])
    with pytest.raises(SystemExit) as stop:
        command_line(sequences.main, sequences.Config, moved=sequences.MOVED)
    assert stop.value.code == 2
    task = flags.replace("=", " ").split()[-1]
    assert f"scripts/run long_memory --preset {task}" in capsys.readouterr().err
