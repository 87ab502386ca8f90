"""The experiment on capacity: nets of two widths on scikit-learn's digits."""

import json

import numpy as np
import pytest

from experiments import capacity
from experiments.reports import capacity as words
from jaxdl.errors import InputError
from jaxdl.runs.config import RunFlags, unflat
from jaxdl.runs.run import Run

pytestmark = pytest.mark.usefixtures("compiled_once")


def config_of(folder, **changes):
    small = {"data": "digits", "counts": (1, 0), "widths": (2, 64), "steps": 40, "batch": 5}
    small |= {"lr": 0.01, "seeds": 2}
    flags = RunFlags(runs_dir=folder, name="small", log_every=20, devices=1)
    return unflat(capacity.Config, {**small, "run": flags, **changes})


@pytest.mark.slow
def test_a_wide_net_learns_few_examples_by_heart(tmp_path, monkeypatch, capsys):
    result = capacity.main(config_of(tmp_path))
    train, test = (np.array(result["sizes"][name]) for name in ("train", "test"))
    assert train.shape == test.shape == (2, 2, 2)  # counts, widths, seeds
    assert (train[0, 1] == 1).all()
    assert (train[0, 1] - test[0, 1] > train[1, 1] - test[1, 1]).all()  # the gap closes
    folder = tmp_path / "capacity" / "small"
    assert (folder / "gap.png").exists()
    printed = capsys.readouterr().out
    assert "train, 1 example" in printed
    assert "± over seeds by Student's t" in printed
    assert json.loads((folder / "result.json").read_text()) == result
    monkeypatch.setattr(Run, "restore", None)  # nothing is trained
    assert capacity.main(config_of(tmp_path)) == result


def test_the_gap_is_train_minus_test_by_width_and_count():
    train = [[[0.5, 0.5], [1.0, 1.0]], [[0.625, 0.625], [0.75, 0.75]]]
    test = [[[0.25, 0.25], [0.5, 0.5]], [[0.5, 0.5], [0.625, 0.625]]]
    result = {
        "sizes": {"counts": (1, 0), "train": train, "test": test},
        "config": {"widths": (4, 64), "batch": 5, "seed": 0, "seeds": 2},
        "images": {"test": 9},
        "run": {
            "steps": 2,
            "wall_seconds": 1,
            "compile_seconds": 1,
            "device": "1 x cpu",
            "machine": "a box",
            "directory": "runs/a",
        },
    }
    lines = [line for line in words.report(result).splitlines() if line.startswith("|")]
    cells = [[cell.split("±")[0].strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["4", "50.0", "25.0", "25.0", "62.5", "50.0", "12.5"]
    assert cells[3] == ["64", "100.0", "50.0", "50.0", "75.0", "62.5", "12.5"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"counts": (5, 1)}, "`counts=5 1`"),
        ({"counts": (1, 5, 0)}, "`counts=1 5 0`: give two counts"),
        ({"counts": (1, 101)}, "only 100 training examples"),
        ({"widths": ()}, "`widths=`: give one number"),
        ({"widths": (4, 0)}, "`widths=0`: choose at least 1"),
        ({"lr": 0.0}, "`lr=0.0`: choose a number above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, says, tmp_path):
    with pytest.raises(InputError, match=says):
        capacity.main(config_of(tmp_path, **wrong))
