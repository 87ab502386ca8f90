"""The experiment on limited data: its data, its runs, what it concludes, and that it resumes."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import limited_data
from experiments.limited_data import Config
from experiments.reports import limited_data as words
from jaxdl.errors import InputError
from jaxdl.recipes.few_labels import classes_of
from jaxdl.runs.run import RunFlags

SMALL = Config(
    data="digits",
    counts=(1, 0),
    steps=20,
    batch=20,
    rates=(0.01,),
    source_steps=10,
    meta_steps=4,
    tasks=2,
    widths=(8,),
    width_steps=20,
    eval_every=10,
    seeds=2,
)


def flags(folder, **kwargs):
    return RunFlags(runs_dir=folder, log_every=10, devices=1, **kwargs)


def test_digits_of_source_and_target_do_not_meet():
    problem = limited_data.load(SMALL)
    parts = (problem.train.x, problem.validation[0], problem.test[0], problem.source[0])
    drawings = [{image.tobytes() for image in np.asarray(part)} for part in parts]
    assert sum(map(len, drawings)) == len(set().union(*drawings)) == 1797
    assert classes_of(problem) == 5
    assert problem.train.sizes.tolist() == [100] * 5


def made_up(scratch, transfer, counts=(1, 20, 0)):
    flat = np.full((len(counts), 2), 0.1).tolist()
    spread = lambda means: [[mean - 0.01, mean + 0.01] for mean in means]  # noqa: E731
    both = lambda values: {"test": values, "validation": values}  # noqa: E731
    methods = {name: both(flat) for name in words.METHODS}
    methods |= {"scratch": both(spread(scratch)), "transfer": both(spread(transfer))}
    ups = [[[0.5, 0.5], [1.0, 1.0]], [[0.625, 0.625], [0.75, 0.75]]]
    downs = [[[0.25, 0.25], [0.5, 0.5]], [[0.5, 0.5], [0.625, 0.625]]]
    return {
        "methods": methods,
        "counts": counts,
        "sizes": {"counts": (1, 0), "train": ups, "test": downs},
        "config": {"data": "mnist", "widths": (4, 64)},
    }


def test_the_finding_is_read_off_the_numbers():
    said = words.finding(made_up([0.3, 0.7, 0.9], [0.61, 0.8, 0.895]))
    assert "the best start (transfer) is 31.0 ± 0.0 points above" in said
    assert "61.0 against 30.0 %" in said
    assert "needs 20 examples before it passes that" in said
    assert "with all examples the difference is -0.5 ± 0.0 points." in said
    assert "64 hidden units is right on 100.0 % of its training examples and 50.0 %" in said
    assert "a gap of 50.0 points, and the gap is 12.5 points with all examples" in said
    assert "one of 4 has 62.5 % in training even then, a gap of 12.5" in said
    said = words.finding(made_up([0.3, 0.4, 0.5], [0.61, 0.8, 0.5]))
    assert "needs more than all examples to pass that" in said
    assert "(within its interval)" in said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"counts": (5, 1)}, "`counts=5 1`"),
        ({"counts": (0, 1)}, "`counts=0 1`"),
        ({"counts": (1,)}, "two rising numbers"),
        ({"rates": (0.1, -1.0)}, "`rates="),
        ({"widths": ()}, "--widths"),
        ({"eval_every": 15}, "`eval_every=15`"),
        ({"seeds": 0}, "`seeds=0`"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, says, tmp_path):
    config = dataclasses.replace(SMALL, **wrong, run=flags(tmp_path))
    with pytest.raises(InputError, match=says):
        limited_data.main(config)


def test_more_examples_than_there_are_is_refused():
    with pytest.raises(InputError, match="only 100 training examples"):
        limited_data.load(dataclasses.replace(SMALL, counts=(1, 101)))


@pytest.mark.slow
def test_the_whole_run_ends_in_a_finding_and_what_is_finished_is_not_trained_again(tmp_path):
    config = dataclasses.replace(SMALL, run=flags(tmp_path, name="small"))
    result = limited_data.main(config)
    folder = tmp_path / "limited_data" / "small"
    assert np.shape(result["methods"]["maml"]["test"]) == (2, 2)
    assert (folder / "accuracy.png").exists()
    assert (folder / "gap.png").exists()
    parts = ("source", "meta", *words.METHODS, "width-8")
    lines = {part: (folder / part / "metrics.jsonl").read_text() for part in parts}
    assert json.loads((folder / "result.json").read_text())["finding"] == result["finding"]
    assert "± 95 % over seeds by Student's t" in words.report(result)

    # Interrupted at the end: a finished part is read back, and gives the same, bit for bit.
    (folder / "result.json").unlink()
    again = limited_data.main(config)
    assert again["methods"] == result["methods"]
    assert again["sizes"] == result["sizes"]
    assert {part: (folder / part / "metrics.jsonl").read_text() for part in parts} == lines
