"""Lines of metrics are the same bits however a training was cut into chunks and processes."""

import json

import numpy as np
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.runs.journal import Journal, Window


@pytest.mark.parametrize("borders", [[], [1, 2, 3], [500], [7, 300, 301, 999]])
def test_borders_of_chunks_do_not_change_a_bit(borders):
    values = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32) ** 3
    one_by_one, in_chunks = Window(), Window()
    for column in values.T:
        one_by_one.add({"loss": column[:, None]})
    for part in np.split(values, borders, axis=1):
        in_chunks.add({"loss": part})
        in_chunks = Window.from_notes(json.loads(json.dumps(in_chunks.notes())))  # a resume
    means = in_chunks.means()["loss"]
    assert means.tobytes() == one_by_one.means()["loss"].tobytes()
    np.testing.assert_allclose(means, values.astype(np.float64).mean(axis=1), rtol=1e-12)


def test_lines_come_back_as_arrays(tmp_path):
    journal = Journal(tmp_path)
    assert journal.read("train") == {}
    journal.append(1, "train", {"loss": np.array([0.1, 0.2])})
    journal.append(1, "validation", {"loss": [float("nan"), 3.0]})
    journal.append(2, "train", {"loss": np.array([0.3, 0.4])})
    journal.append(2, "train", {"another": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("[]\n7\n{}\n")
    found = journal.read("train")
    assert found["step"].tolist() == [1, 2]
    assert found["loss"].tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert np.array_equal(journal.read("validation")["loss"], [[np.nan, 3.0]], equal_nan=True)


def test_cut_keeps_lines_up_to_a_step_as_they_are(tmp_path):
    journal = Journal(tmp_path)
    journal.cut(3)
    for step in (1, 2, 3):
        journal.append(step, "train", {"loss": 1 / step})
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "spl')
    journal.cut(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines[:2])


def test_lines_are_selected_by_step_and_split(tmp_path):
    journal = Journal(tmp_path)
    for step in (2, 4, 6):
        for split in ("train", "validation"):
            journal.append(step, split, {"loss": 1 / step})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "spl')
    journal.select(lambda step, split: split == "train" or step == 4)
    assert journal.read("train")["step"].tolist() == [2, 4, 6]
    assert journal.read("validation")["step"].tolist() == [4]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_step_that_is_nan_makes_the_mean_nan_in_its_seed_alone_also_after_a_resume():
    window = Window()
    window.add({"accuracy": np.float32([[1.0, np.nan], [1.0, 0.0]])})
    window = Window.from_notes(json.loads(json.dumps(window.notes())))
    window.add({"accuracy": np.float32([[1.0], [0.5]])})
    np.testing.assert_array_equal(window.means()["accuracy"], [np.nan, 0.5])


def test_a_metric_that_came_later_hides_no_line(tmp_path):
    journal = Journal(tmp_path)
    journal.append(1, "train", {"loss": 1.0})
    journal.append(2, "train", {"loss": 0.5, "accuracy": 0.75})
    assert journal.read("train")["loss"].tolist() == [1.0, 0.5]
    window = Window()
    window.add({"loss": np.full((1, 50), 2.0)})
    window = Window.from_notes(json.loads(json.dumps(window.notes())))
    window.add({"loss": np.full((1, 50), 4.0), "accuracy": np.ones((1, 50))})
    assert (window.means()["loss"], window.means()["accuracy"], window.count) == (3.0, 1.0, 100)


def test_notes_of_earlier_versions_have_one_count():
    window = Window.from_notes({"count": 4, "sums": {"loss": [8.0]}})
    assert (window.count, window.means()["loss"].tolist()) == (4, [2.0])


@pytest.mark.parametrize("name", ["step", "split"])
def test_a_metric_with_the_name_of_a_field_is_refused(name, tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(InputError, match=f"a metric is called '{name}', as a field of each line"):
        journal.append(1, "train", {"loss": 1.0, name: 2.0})
    assert not journal.path.exists()


def test_lines_of_later_steps_are_no_damage_of_the_lines_before_a_mark(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.append(32 * step, "examples", {"seen": 1.0})
        journal.append(step, "train", {"loss": 1 / step})
    mark = journal.mark(3)
    journal.cut(3)
    assert journal.begins_as(mark)
    journal.select(lambda step, split: step != 2)
    assert not journal.begins_as(mark)


def test_notes_stay_as_they_were_while_the_window_goes_on():
    """A checkpoint is written in the background."""
    window = Window()
    window.add({"loss": np.ones((1, 2))})
    notes = window.notes()
    window.add({"loss": np.ones((1, 300))})
    assert Window.from_notes(notes).means()["loss"] == 1


@pytest.mark.parametrize("values", ["[[]]", "[]", "[[1.0, 2.0]]", '"many"', "[1.0, [2.0]]", "{}"])
def test_values_that_are_no_numbers_of_seeds_are_damage(values, tmp_path):
    journal = Journal(tmp_path)
    journal.path.write_text(f'{{"step": 1, "split": "train", "loss": {values}}}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl is damaged: .* Put the file back"):
        journal.read("train")
