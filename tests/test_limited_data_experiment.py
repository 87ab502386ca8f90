"""The experiment on limited data: its data, its runs, and that it resumes."""

import json

import numpy as np
import pytest

from experiments import limited_data
from experiments.limited_data import Config
from experiments.reports import limited_data as words
from jaxdl.errors import InputError
from jaxdl.recipes.few_labels import classes_of
from jaxdl.recipes.problems import other_source
from jaxdl.runs.cli import command_line
from jaxdl.runs.config import RunFlags, unflat

SMALL = {
    "data": "digits",
    "counts": (1, 0),
    "steps": 20,
    "batch": 20,
    "rates": (0.01,),
    "source_steps": 10,
    "meta_steps": 4,
    "tasks": 2,
    "eval_every": 10,
    "seeds": 2,
}


def flags(folder, **kwargs):
    return RunFlags(runs_dir=folder, log_every=10, devices=1, **kwargs)


def test_digits_of_source_and_target_do_not_meet():
    problem = other_source("digits", None)
    parts = (problem.train.x, problem.validation[0], problem.test[0], problem.source[0])
    drawings = [{image.tobytes() for image in np.asarray(part)} for part in parts]
    assert sum(map(len, drawings)) == len(set().union(*drawings)) == 1797
    assert classes_of(problem) == 5
    assert problem.train.sizes.tolist() == [100] * 5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"counts": (5, 1)}, "`counts=5 1`"),
        ({"counts": (0, 1)}, "`counts=0 1`"),
        ({"counts": (1,)}, "two rising numbers"),
        ({"rates": (0.1, -1.0)}, "`rates=-1.0`"),
        ({"eval_every": 15}, "`eval_every=15`"),
        ({"seeds": 0}, "`seeds=0`"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, says, tmp_path):
    config = unflat(Config, {**SMALL, **wrong, "run": flags(tmp_path)})
    with pytest.raises(InputError, match=says):
        limited_data.main(config)


def test_more_examples_than_there_are_is_refused(tmp_path):
    config = unflat(Config, {**SMALL, "counts": (1, 101), "run": flags(tmp_path)})
    with pytest.raises(InputError, match="only 100 training examples"):
        limited_data.main(config)


@pytest.mark.parametrize("flag", ["--widths", "--width-steps", "--width_lr"])
def test_what_moved_to_capacity_is_told(flag, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["limited_data.py", flag, "4"])
    with pytest.raises(SystemExit) as stop:
        command_line(limited_data.main, Config, moved=limited_data.MOVED)
    assert stop.value.code == 2
    said = "is now an experiment of its own. Run scripts/run capacity"
    assert capsys.readouterr().err == f"error: {flag.replace('_', '-')} {said}\n"


@pytest.mark.slow
def test_the_whole_run_ends_in_tables_and_what_is_finished_is_not_trained_again(tmp_path):
    config = unflat(Config, {**SMALL, "run": flags(tmp_path, name="small")})
    result = limited_data.main(config)
    folder = tmp_path / "limited_data" / "small"
    assert np.shape(result["methods"]["maml"]["test"]) == (2, 2)
    assert (folder / "accuracy.png").exists()
    parts = ("source", "meta", *words.METHODS)
    lines = {part: (folder / part / "metrics.jsonl").read_text() for part in parts}
    assert json.loads((folder / "result.json").read_text()) == result
    assert "± 95 % over seeds by Student's t" in words.report(result)

    # Interrupted at the end: a finished part is read back, and gives the same, bit for bit.
    (folder / "result.json").unlink()
    again = limited_data.main(config)
    assert again["methods"] == result["methods"]
    assert {part: (folder / part / "metrics.jsonl").read_text() for part in parts} == lines
