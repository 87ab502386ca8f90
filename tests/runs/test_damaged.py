"""A run directory that is damaged, and names and paths that cannot be: one sentence for each."""

import builtins
import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Literal

import pytest
import yaml

from jaxdl.errors import InputError, RunError
from jaxdl.files.paths import whole_path
from jaxdl.runs.config import Count, RunFlags, with_whole_paths
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.identity import load_config, record_config
from jaxdl.runs.journal import Journal
from jaxdl.runs.run import Interrupted, open_run
from tests import tiny_run

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 6 steps."""
    folder = tmp_path_factory.mktemp("finished")
    tiny_run.train(tiny_run.config(folder))
    return folder / "tiny" / "a"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "tiny" / "a"))


def again(run, *, steps=6):
    return tiny_run.train(tiny_run.config(run.parent.parent, steps=steps))


def with_steps(text, steps):
    found = json.loads(text)
    return json.dumps({**found, "run": {**found["run"], "steps": steps}})


def bomb(text):
    """A learning rate of 9 ** 9 numbers, in a few hundred bytes."""
    lists = ["lr: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lists += [f"x{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9)]
    return "config:\n" + "".join(f"  {line}\n" for line in [*lists, "lr: *a8"])


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("result.json", lambda text: "{}", "does not say how many steps its run has"),
        ("result.json", lambda text: with_steps(text, float("inf")), "does not say how many steps"),
        ("result.json", lambda text: DEEP, r"cannot be read \(it is nested too deeply\)"),
        ("config.yaml", lambda text: DEEP, "config.yaml is damaged"),
        ("config.yaml", lambda text: "config: " + "{a: " * 20_000, "config.yaml is damaged"),
        ("config.yaml", lambda text: f"config:\n  5: 3{text[7:]}", "damaged: the key 5 is no"),
        ("config.yaml", lambda text: "- 1", "config.yaml is damaged"),
        ("config.yaml", lambda text: bomb(text), "config.yaml is damaged: .*alias"),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(run, name, change, says):
    path = run / name
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError, match=says):
        again(run)


@pytest.mark.parametrize(
    ("found", "says"),
    [({}, "it has no 'loss'"), ({"loss": {}}, "float"), ({"loss": [1]}, "float")],
)
def test_a_result_without_what_the_report_shows_is_damaged(tmp_path, found, says):
    def train(config, run):
        return run.finish({"loss": 0.5})

    def report(result):
        return f"{float(result['loss']):.1f}"

    settings = tiny_run.config(tmp_path)
    run_experiment("tiny", settings, train, report)
    path = tmp_path / "tiny" / "a" / "result.json"
    path.write_text(json.dumps({"run": json.loads(path.read_text())["run"], **found}))
    with pytest.raises(RunError, match=rf"result.json is damaged: .*{says}.*\. Move it away"):
        run_experiment("tiny", settings, train, report)


def test_an_error_of_the_report_after_a_training_keeps_its_kind(tmp_path):
    """It is the code's fault, and no file is damaged."""
    settings = tiny_run.config(tmp_path)
    with pytest.raises(KeyError):
        run_experiment("tiny", settings, lambda config, run: {}, lambda found: found["x"])


def test_a_reader_of_the_report_who_goes_leaves_the_page(tmp_path, monkeypatch):
    def gone(*words, **options):
        raise BrokenPipeError

    monkeypatch.setattr(builtins, "print", gone)
    with pytest.raises(BrokenPipeError):
        run_experiment("tiny", tiny_run.config(tmp_path), lambda config, run: run.finish({}), str)
    assert (tmp_path / "tiny" / "a" / "report.html").exists()


@dataclasses.dataclass(frozen=True)
class Sizes:
    hidden: tuple[Count, ...] = (8,)
    kind: Literal["a", "b"] = "a"
    decay_steps: Count | None = None
    steps: Count = 1
    eval_every: Count = 400
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("hidden", 8), ("hidden", None), ("hidden", ["x"]), ("hidden", [0]), ("kind", "c")],
        *[("decay_steps", -5), ("decay_steps", "x"), ("steps", float("inf")), ("steps", True)],
    ],
)
def test_a_recorded_value_of_another_kind_is_told_by_its_field(tmp_path, field, value):
    record_config(tmp_path, Sizes())
    assert load_config(tmp_path, Sizes).hidden == (8,)
    text = yaml.safe_load((tmp_path / "config.yaml").read_text())
    text["config"][field] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(RunError, match=rf"config.yaml is damaged: .*{field}.*\. Correct the file"):
        load_config(tmp_path, Sizes)


@pytest.mark.parametrize("value", ['"x"', "[1, [2]]", "1" + "0" * 400])
def test_a_metric_that_is_no_number_is_told(tmp_path, value):
    journal = Journal(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "split": "train", "loss": {value}}}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: .*\. Put the file back"):
        journal.read("train")


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.jsonl", "lock"])
def test_a_folder_in_place_of_a_file_is_told_in_a_sentence(run, name):
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(RunError, match=name):
        again(run, steps=8)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_finished_run_that_may_only_be_read_is_reprinted(run, monkeypatch, number):
    """One without a result cannot go on, and says so."""
    opened, settings = os.open, tiny_run.config(run.parent.parent)

    def read_only(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(run)):
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    with open_run("tiny", settings) as again:
        assert again.result() == json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    with pytest.raises(RunError, match=r"cannot write .*lock"), open_run("tiny", settings):
        pass


def flipped(text):
    """A digit of the first line is another digit, so that the line is still JSON."""
    at = text.index("0.") + 2
    return text[:at] + str(9 - int(text[at])) + text[at + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("{", "[", 1),
        flipped,
    ],
)
def test_a_journal_that_lost_lines_before_the_checkpoint_is_told(tmp_path, change):
    """Results are made of it: a multitask run would end in a KeyError, or in other numbers."""
    settings = {"steps": 6, "log_every": 1, "save_minutes": 0.0}
    stopped = tiny_run.config(tmp_path, **settings)
    with pytest.raises(Interrupted):
        tiny_run.train(stopped, signal_after=(4, signal.SIGINT))
    path = tmp_path / "tiny" / "a" / "metrics.jsonl"
    text = path.read_text()
    path.write_text(change(text))
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged.* lines .*checkpoint 4"):
        tiny_run.train(stopped)
    path.write_text(text + "half a li")
    assert int(tiny_run.train(stopped).step) == 6


def test_lines_of_a_last_step_may_come_and_go(tmp_path):
    """Planted bugs: a mark has the lines of the last step; all lines must be as they were."""

    def upto(steps, *, name="a", stop=None, train=True):
        settings = tiny_run.config(tmp_path, name=name, steps=steps, log_every=3)
        if not train:  # a kill before the first step
            with open_run("tiny", settings) as run:
                run.restore(tiny_run.start(settings)[1])
            return ""
        with contextlib.nullcontext() if stop is None else pytest.raises(Interrupted):
            tiny_run.train(settings, signal_after=stop and (stop, signal.SIGINT))
        path = tmp_path / "tiny" / name
        (path / "result.json").unlink(missing_ok=True)
        return (path / "metrics.jsonl").read_text()

    upto(4)
    upto(8, train=False)  # the line of step 4 goes
    upto(8)
    upto(14, stop=10)
    upto(10, train=False)  # a line of step 10 comes
    upto(10)
    assert upto(14) == upto(14, name="never")


def test_a_line_of_the_journal_that_is_nested_too_deeply_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(DEEP + "\n")
    assert int(again(run, steps=8).step) == 8


def test_what_a_symbolic_link_points_to_keeps_its_content(run, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for part in (".result.json.part", ".config.yaml.part", ".metrics.jsonl.part"):
        (run / part).symlink_to(precious)
    again(run, steps=8)
    (run / "lock").unlink()
    (run / "lock").symlink_to(precious)
    with pytest.raises(RunError, match=r"cannot write .*lock .*Remove this symbolic link"):
        again(run, steps=8)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "-a", ".", "..", "a/b", " a", "a\udcff", "a\0b"]
)
def test_a_name_that_is_no_plain_one_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"`name=.*` must be a plain directory name: printable"):
        tiny_run.train(tiny_run.config(tmp_path, name=name))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("x" * 5000, "`runs_dir=x{40}...` is too long. Choose at most 3,800 bytes"),
        ("x/" * 2500, "is too long. Choose at most 3,800 bytes, and at most 255 per name"),
        ("a\0b", "has a zero byte"),
        ("a\udcff", "is not in UTF-8"),
        ("~nobody-of-this-name/x", "there is no such user. Choose a path that does not begin"),
    ],
)
def test_a_path_that_cannot_be_is_refused_before_anything_is_made(path, says):
    with pytest.raises(InputError, match=says):
        tiny_run.train(tiny_run.config(Path(path)))


def test_the_home_of_the_user_is_found_in_nested_fields_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    settings = tiny_run.Config(run=RunFlags(runs_dir=Path("~/runs")))
    assert with_whole_paths(settings).run.runs_dir == Path("/home/me/runs")
    assert dataclasses.replace(settings, run=RunFlags()) == with_whole_paths(tiny_run.Config())
    assert whole_path(Path("a/~"), "data_dir") == Path("a/~")
