"""report.html of a run: written once, from what lies in the directory, and never at its cost."""

import pytest

from jaxdl.errors import InputError
from jaxdl.runs import page
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import open_run
from tests import tiny_run


def report(result):
    return f"| loss |\n| ---: |\n| {result['loss']} |"


def train(config, run):
    run.log(1, "train", {"loss": [1.0, 2.0]})
    run.part("pretrained").log(1, "train", {"error": [1.0, 2.0]})
    (run.directory / "episode.png").write_bytes(b"PNG")
    return run.finish({"loss": 0.25})


def run(folder, train=train):
    run_experiment("tiny", tiny_run.config(folder), train, report)
    return folder / "tiny" / "a"


def test_a_run_has_a_page_with_its_table_curves_pictures_and_settings(tmp_path):
    text = (run(tmp_path) / page.NAME).read_text("utf-8")
    for part in (
        "<title>tiny: a</title>",
        "<td>0.25</td>",
        "<h2>Training</h2>",
        "<h2>Training: pretrained</h2>",
        'alt="episode"',
        "<td>lr</td><td>0.1</td>",
        "<td>wall_seconds</td>",
    ):
        assert part in text, part


def own(folder, text=None):
    """A program of one's own, without `run_experiment`."""
    with open_run("tiny", tiny_run.config(folder)) as run:
        if run.result() is None:
            run.log(1, "train", {"loss": [1.0, 2.0]})
            run.finish({"loss": 0.25, "accuracy": [0.5, 0.75], "method": "mine"})
            if text is not None:
                run.page(text)
    return folder / "tiny" / "a" / page.NAME


def test_a_run_of_ones_own_has_a_page_with_the_numbers_of_its_result(tmp_path):
    path = own(tmp_path)
    text = path.read_text("utf-8")
    for part in ("<td>accuracy</td>", ">0.5 0.75</td>", "<h2>Training</h2>", "<td>lr</td>"):
        assert part in text, part
    path.unlink()
    assert not own(tmp_path).exists()  # nothing was computed
    assert "| mine |" not in text


def test_the_text_of_a_page_may_be_ones_own(tmp_path):
    text = own(tmp_path, "a sentence of mine").read_text("utf-8")
    assert "a sentence of mine" in text
    assert "0.75" not in text.partition("<h2>")[0]


def test_a_run_that_has_not_finished_has_no_page(tmp_path):
    with (
        pytest.raises(InputError, match=r"after its end\. Call run\.finish"),
        open_run("tiny", tiny_run.config(tmp_path)) as run,
    ):
        run.page("early")


def test_a_run_that_goes_on_has_a_new_page(tmp_path):
    path = own(tmp_path)
    path.write_text("old")
    with open_run("tiny", tiny_run.config(tmp_path, steps=8)) as run:
        run.finish({"loss": 0.125})
    assert "0.125" in path.read_text("utf-8")


def test_a_finished_run_that_is_reprinted_leaves_all_as_it_is(tmp_path, capsys):
    path = run(tmp_path) / page.NAME
    path.unlink()
    run(tmp_path, train=None)
    assert not path.exists()
    assert "| 0.25 |" in capsys.readouterr().out


def test_a_run_without_matplotlib_says_so_in_place_of_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    text = (run(tmp_path) / page.NAME).read_text("utf-8")
    assert "no curves" in text
    assert "plots" in text
    assert "<svg" not in text


def test_a_page_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    def odd(config, run):
        (run.directory / "episode.png").mkdir()  # where a file should be
        return run.finish({"loss": 0.25})

    run(tmp_path, train=odd)
    said = capsys.readouterr()
    assert f"no {page.NAME}: " in said.err
    assert "| 0.25 |" in said.out


def test_what_a_log_holds_does_not_end_the_run(tmp_path, capsys):
    def odd(config, run):
        run.log(1, "train", {"loss": [1.0, 2.0], "words": "none", "large": [1e308, -1e308]})
        run.log(2, "train", {"loss": [1.0], "words": "none", "large": [1.0]})
        return run.finish({"loss": 0.5})

    directory = run(tmp_path, train=odd)
    assert "| 0.5 |" in capsys.readouterr().out
    assert (directory / "result.json").exists()
