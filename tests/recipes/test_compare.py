"""Runs are compared on the episodes that both have met, by SciPy's paired intervals."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

from experiments import few_shot
from jaxdl.data.prepare.cache import save_arrays
from jaxdl.errors import InputError, RunError
from jaxdl.recipes import command
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.compare import compare, difference, names_of, other_training
from jaxdl.recipes.side_by_side import timed_lines
from jaxdl.runs.config import RunFlags, unflat
from jaxdl.runs.identity import DIGESTS, record_config
from jaxdl.runs.journal import Journal
from jaxdl.runs.supervise import SECONDS

RNG = np.random.default_rng(0)
TASKS = RNG.normal(size=600)
"""How hard each episode is, for every learner."""
FIRST = 0.6 + 0.1 * TASKS + 0.01 * RNG.normal(size=(3, 600))
SECOND = 0.62 + 0.1 * TASKS + 0.01 * RNG.normal(size=(3, 600))


def a_run(folder, learner, accuracy, **fields):
    folder.mkdir()
    flags = RunFlags(name=folder.name)  # each run has its own, which are no settings of a training
    fields = {"test_episodes": accuracy.shape[1], **fields}
    config = dataclasses.replace(unflat(few_shot.Config, fields), run=flags)
    record_config(folder, config if learner == "maml" else with_learner(config, learner))
    arrays = {f"{learner}/accuracy": accuracy, f"{learner}/loss": -accuracy}
    save_arrays(folder / "episodes.npz", arrays | {"pretrained/accuracy": 0 * accuracy})
    return folder


@pytest.fixture
def two(tmp_path):
    first = a_run(tmp_path / "a", "maml", FIRST)
    return first, a_run(tmp_path / "b", "protonet", SECOND)


def test_differences_are_paired_by_episode_and_by_seed():
    found = difference(FIRST, SECOND)
    paired = SECOND.mean(axis=0) - FIRST.mean(axis=0)
    low, high = stats.norm.interval(0.95, paired.mean(), stats.sem(paired))
    np.testing.assert_allclose(found.over_episodes[:3], (paired.mean(), low, high), rtol=1e-6)
    # Ten times as narrow as without pairs.
    alone = 1.96 * np.hypot(stats.sem(FIRST.mean(axis=0)), stats.sem(SECOND.mean(axis=0)))
    assert (high - low) / 2 < alone / 10

    by_seed = SECOND.mean(axis=1) - FIRST.mean(axis=1)
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    np.testing.assert_allclose(found.over_seeds[:3], (by_seed.mean(), low, high), rtol=1e-6)
    assert found.over_seeds.over == "3 seeds"


@pytest.mark.parametrize(
    "arrays",
    [
        {"protonet/accuracy": np.full((3, 600), "x"), "protonet/loss": np.full((3, 600), "x")},
        {"protonet/accuracy": np.float64(1), "protonet/loss": np.float64(1)},
        {"protonet/accuracy": SECOND[:, :5], "protonet/loss": SECOND[:, :5]},
        {"protonet/accuracy": SECOND},
        {"protonet/loss": SECOND},
        {"maml/accuracy": SECOND, "maml/loss": SECOND},
        {"protonet/accuracy": SECOND[:, :0], "protonet/loss": SECOND[:, :0]},
    ],
)
def test_episodes_that_are_no_such_numbers_are_damaged(two, arrays):
    save_arrays(two[1] / "episodes.npz", arrays)
    with pytest.raises(RunError, match=r"episodes\.npz is damaged.*\. Delete result\.json"):
        compare(*two)


def test_metrics_of_other_numbers_of_episodes_are_damaged(two):
    arrays = {"protonet/accuracy": SECOND, "protonet/loss": SECOND[:, :300]}
    save_arrays(two[1] / "episodes.npz", arrays)
    with pytest.raises(RunError, match=r"b/episodes.npz .* loss is float64 \(3, 300\)"):
        compare(two[1], two[0])


@pytest.mark.parametrize("episodes", [1, 599])
def test_a_run_that_lost_episodes_is_told_and_not_the_other(two, episodes):
    """One episode would be paired with all."""
    arrays = {f"protonet/{name}": SECOND[:, :episodes] for name in ("accuracy", "loss")}
    save_arrays(two[1] / "episodes.npz", arrays)
    for pair in (two, two[::-1]):
        with pytest.raises(RunError, match=r"b/episodes.npz is damaged"):
            compare(*pair)


def test_other_numbers_of_seeds_leave_the_interval_over_episodes():
    found = difference(FIRST, SECOND[:2])
    assert found.over_seeds is None
    paired = SECOND[:2].mean(axis=0) - FIRST.mean(axis=0)
    np.testing.assert_allclose(found.over_episodes.mean, paired.mean())
    assert difference(FIRST[:1], SECOND[:1]).over_seeds is None


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_command_prints_a_table_per_metric(two, tmp_path, capsys):
    third = a_run(tmp_path / "c", "anil", FIRST[:2] - 0.1)
    assert command.main(["compare", *map(str, (*two, third))]) == 0
    said = capsys.readouterr().out
    accuracy, _, maml, protonet, anil, loss, *_, last = cells(said)
    assert accuracy[:2] == ["accuracy in %", "mean"]
    assert accuracy[2] == "minus maml, ± 95 % over episodes"
    assert maml == ["maml", f"{100 * FIRST.mean():.2f}", "", ""]
    difference = 100 * (SECOND.mean() - FIRST.mean())
    assert protonet[:2] == ["protonet", f"{100 * SECOND.mean():.2f}"]
    assert protonet[2].startswith(f"{difference:+.2f} ± 0.0")
    assert protonet[3].startswith(f"{difference:+.2f} ± ")
    assert anil[2].startswith("-10.")
    assert anil[3] == ""  # two seeds and three
    assert (loss[0], last[0]) == ("loss", "anil")
    assert last[2].startswith("+0.1")
    assert "maml and protonet trained otherwise: test_inner_steps 3 and None\n" in said


def test_a_single_run_is_refused(two, capsys):
    assert command.main(["compare", str(two[0])]) == 2
    assert "takes two runs or more" in capsys.readouterr().err


def test_the_page_has_curves_over_steps_and_over_time(two, tmp_path):
    """The lines of a validation have the minutes of the training between whose lines they lie."""
    for run in two:
        journal = Journal(run)
        for step in (10, 20):
            journal.append(step, "train", {"loss": [step, step + 1]})
        journal.append(15, "validation", {"loss": [0.5, 0.6]})
    times = Journal(two[0], name=SECONDS)
    for step, seconds in ((10, 130), (20, 190)):
        times.append(step, "train", {"seconds": seconds, "compile_seconds": 70})
    assert timed_lines(two[0], "train")["minutes"].tolist() == [1, 2]
    assert timed_lines(two[0], "validation")["minutes"].tolist() == [1.5]
    assert "minutes" not in timed_lines(two[1], "train")
    Journal(two[0]).append(5, "early", {"loss": [1.0, 2.0]})  # before the first time
    assert np.isnan(timed_lines(two[0], "early")["minutes"]).all()
    path = tmp_path / "compare.html"
    assert command.main(["compare", *map(str, two), "--page", str(path)]) == 0
    text = path.read_text("utf-8")
    for part in ("<h2>Training tasks</h2>", "<h2>Validation tasks</h2>", "<td>protonet</td>"):
        assert part in text


def test_test_fields_stand_in_for_those_of_training(two, tmp_path):
    """60-way training tasks and 5-way test tasks are the episodes of a 5-way run."""
    wide = a_run(tmp_path / "c", "protonet", SECOND, ways=60, test_ways=5)
    assert compare(two[0], wide)["accuracy"] == compare(*two)["accuracy"]


def test_settings_of_the_training_that_differ_are_told(two, tmp_path):
    other = a_run(tmp_path / "c", "maml", SECOND, steps=50, ways=7, test_ways=5)
    assert other_training(two[0], other) == "ways 5 and 7, test_ways None and 5, steps 4000 and 50"


def test_two_runs_of_one_learner_are_told_apart(two, tmp_path, capsys):
    other = a_run(tmp_path / "c", "maml", SECOND)
    assert command.main(["compare", str(two[0]), str(other)]) == 0
    assert [line[0] for line in cells(capsys.readouterr().out)[2:4]] == ["maml a", "maml c"]
    (tmp_path / "far").mkdir()
    far = a_run(tmp_path / "far" / "a", "maml", SECOND)
    assert names_of([two[0], far, other, two[1]]) == ["maml a 1", "maml a 2", "maml c", "protonet"]


def test_the_ways_of_tasks_of_a_table_do_not_count(two, tmp_path):
    first, second = (
        a_run(tmp_path / f"t{ways}", "maml", SECOND, data="table", task="who", ways=ways)
        for ways in (3, 5)
    )
    assert compare(first, second)["accuracy"].over_episodes.mean == 0


def test_another_division_of_the_characters_gives_other_episodes(two, tmp_path):
    other = a_run(tmp_path / "c", "maml", SECOND, omniglot_seed=2)
    with pytest.raises(InputError, match="different episodes: omniglot_seed 1 and 2"):
        compare(two[0], other)
    path = two[0] / "config.yaml"  # of before the field came
    path.write_text(path.read_text().replace("  omniglot_seed: 1\n", ""))
    assert "omniglot_seed" not in path.read_text()
    assert compare(*two)["accuracy"].over_episodes.mean != 0


def test_another_division_of_a_table_gives_other_episodes(two, tmp_path):
    table = {"data": "table", "target": "y"}
    first, same, other = (
        a_run(tmp_path / name, "maml", SECOND, **table, **more)
        for name, more in {"t": {}, "s": {"split_seed": 0}, "o": {"split_seed": 1}}.items()
    )
    assert compare(first, same)["accuracy"].over_episodes.mean == 0
    with pytest.raises(InputError, match="different episodes: split_seed 0 and 1"):
        compare(first, other)


def test_other_files_are_told_without_their_digest(two, tmp_path):
    other = a_run(tmp_path / "c", "maml", SECOND)
    path = other / "config.yaml"
    line = f"config:\n  {DIGESTS['path']}: {'ab' * 32}\n"
    path.write_text(path.read_text().replace("config:\n", line))
    with pytest.raises(InputError, match=r"different episodes: other files. Give two"):
        compare(two[0], other)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ways": 4}, "ways 5 and 4"),
        ({"test_shots": 5}, "shots 1 and 5"),
        ({"test_queries": 7, "data": "digits"}, "data numbers and digits, test_queries 5 and 7"),
    ],
)
def test_other_episodes_are_refused(fields, words, two, tmp_path, capsys):
    other = a_run(tmp_path / "c", "protonet", SECOND, **fields)
    with pytest.raises(InputError, match=re.escape(words)):
        compare(two[0], other)
    assert command.main(["compare", str(two[0]), str(other)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_is_no_finished_run_is_refused(two, tmp_path):
    with pytest.raises(InputError, match="there is no run in"):
        compare(two[0], tmp_path / "none")
    (two[1] / "episodes.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match="damaged"):
        compare(*two)
    (two[1] / "episodes.npz").unlink()
    with pytest.raises(InputError, match=r"has no episodes.npz. Give finished runs of few_shot"):
        compare(*two)
