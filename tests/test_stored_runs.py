"""What an older revision stored of each experiment is reprinted and goes on, whatever has moved.

tests/fixtures/runs_0_1.py says what is stored and how it was made.
"""

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.runs.identity import added
from jaxdl.runs.run import Run
from tests.fixtures.runs_0_1 import (
    DONE,
    FLAGS,
    MORE,
    config_of,
    losses,
    main_of,
    prepare,
    small_nets,
)

ARCHIVE = Path(__file__).parent / "fixtures" / "runs_0_1.tar.xz"
FAST = ("continual",)
"""The experiments that go on in every run of the tests: all eleven take two minutes of a core."""


WIDTHS = " --widths 1 --width-steps 2"
AIRBENCH = (
    "--lr 0.001 --momentum 0.9 --weight-decay 0 --border zeros --smoothing 0 --bias-scale 1"
    " --dtype float32 --decay-steps 9 --translate 2 --cutout 3 --batch 8 --validation 10"
    " --eval-every 2"
)
"""The defaults of cifar10, in which the stored run of the net of airbench was made."""
NOW = {
    "cifar10": ("airbench", AIRBENCH),
    "limited_data": ("limited_data", FLAGS["limited_data"].replace(WIDTHS, "")),
    "sequences": ("long_memory", FLAGS["sequences"]),
}
"""The experiment and the flags that serve a stored run today, if they have changed since."""
LATER = {
    *("capacity", "cifar10", "many_questions", "regression_1d", "regression_2d", "sequences"),
    "tabular",
}
"""Experiments that had no run of their own when the runs were stored."""
NAMED = ("limited_data",)
"""Runs that a command finds only by their name. The widths were part of the automatic name. They
have gone to `capacity`, and the stored run has others than the default."""


class Stored(NamedTuple):
    """The run of an experiment in a folder that a test may change."""

    experiment: str
    folder: Path
    name: str

    @property
    def directory(self) -> Path:
        return self.folder / self.experiment / self.name

    def config(self, *flags: str, steps: int = DONE) -> Any:
        """The configuration that made it, which has no name for it."""
        experiment, own = NOW.get(self.experiment, (self.experiment, FLAGS[self.experiment]))
        named = ("--name", self.name) if self.experiment in NAMED and "--name" not in flags else ()
        return config_of(experiment, self.folder, steps, *named, *flags, own=own)

    def result(self) -> dict[str, Any]:
        return json.loads((self.directory / "result.json").read_text())

    def main(self, config: Any) -> dict[str, Any]:
        return main_of(NOW.get(self.experiment, (self.experiment, ""))[0])(config)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture
def stored(request, unpacked, tmp_path):
    """A copy of the run of the experiment that is the test's parameter."""
    shutil.copytree(unpacked / "runs" / request.param, tmp_path / request.param)
    (name,) = (path.name for path in (tmp_path / request.param).iterdir())
    return Stored(request.param, tmp_path, name)


@pytest.fixture
def _nothing_is_trained(monkeypatch):
    def restore(run, state):
        raise AssertionError(f"a training began in {run.directory}")

    monkeypatch.setattr(Run, "restore", restore)


def contents(folder):
    """The bytes of all files but the locks, which only say who is at work."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != "lock"}


each_experiment = pytest.mark.parametrize("stored", FLAGS, indirect=True)


def test_there_is_a_run_of_each_experiment():
    files = (Path(__file__).parents[1] / "experiments").glob("[!_]*.py")
    served = {NOW.get(name, (name, ""))[0] for name in FLAGS}
    assert {path.stem for path in files} - served == LATER


@each_experiment
@pytest.mark.usefixtures("_nothing_is_trained")
def test_the_same_command_reprints_a_finished_run(stored, capsys):
    """With and without its name, which is made of the configuration."""
    before = contents(stored.folder)
    for flags in (("--name", stored.name), ()):
        assert stored.main(stored.config(*flags)) == stored.result()
        printed = capsys.readouterr().out
        assert printed.startswith(("| ", "test accuracy in %"))
        assert printed.endswith(f"; runs/{stored.experiment}/{stored.name}\n")  # where it was made
    assert contents(stored.folder) == before


@each_experiment
@pytest.mark.usefixtures("_nothing_is_trained")
def test_another_command_is_refused_under_its_name(stored):
    with pytest.raises(InputError, match=r"was made with `seed=0`, not 1\. .* only steps and run"):
        stored.main(stored.config("--name", stored.name, "--seed", "1"))
    with pytest.raises(InputError, match=f"has already done {DONE} steps, more than `steps=2`"):
        stored.main(stored.config(steps=2))


@each_experiment
@pytest.mark.usefixtures("_nothing_is_trained")
def test_a_field_that_comes_later_leaves_a_run_its_name(stored):
    config = stored.config()

    def later(value, **run):
        """The configuration as a revision has it that knows one field more."""
        fields = [("later", int, added(0))]
        kind = dataclasses.make_dataclass("Config", fields, bases=(type(config),), frozen=True)
        known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return kind(**known | {"run": dataclasses.replace(config.run, **run)}, later=value)

    name = stored.name if stored.experiment in NAMED else ""
    assert stored.main(later(0, name=name)) == stored.result()
    with pytest.raises(InputError, match=r"was made with `later=0`, not 3"):
        stored.main(later(3, name=stored.name))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data folder that the runs were made with; JAXDL_DATA is no part of a configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXDL_DATA", str(prepare(tmp_path_factory.mktemp("prepared"))))
        yield


def marked(folder):
    """Changes the first number in all journals, as no training would, and returns these lines."""
    lines = {}
    for journal in folder.rglob("metrics.jsonl"):
        first, *others = map(json.loads, journal.read_text().splitlines())
        _, _, name, *_ = first
        lines[journal] = first | {name: [0.125] * len(first[name])}
        text = map(json.dumps, (lines[journal], *others))
        journal.write_text("".join(f"{line}\n" for line in text))
    return lines


@pytest.mark.parametrize(
    "stored",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in FLAGS],
    indirect=True,
)
@pytest.mark.usefixtures("data", "compiled_once")
def test_a_run_goes_on_as_it_would_have_where_it_was_made(stored, unpacked, monkeypatch):
    """From its last checkpoint, with no step before it done again, to the same losses: another CPU
    rounds otherwise, and TRPO makes a per cent of that, but a step or a random number
    more or less would show."""
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    firsts = marked(stored.folder)
    with small_nets():
        result = stored.main(stored.config(steps=MORE))
    assert result["run"]["steps"] == MORE
    assert result == stored.result()
    assert {path: json.loads(path.read_text().splitlines()[0]) for path in firsts} == firsts

    whole = json.loads((unpacked / "later.json").read_text())
    found = losses(stored.folder, DONE)
    assert found.keys() == {place for place in whole if place.startswith(f"{stored.experiment}/")}
    for place, lines in found.items():
        assert [step for step, _ in lines] == [step for step, _ in whole[place]]
        of_seeds, expected = ([loss for _, loss in each] for each in (lines, whole[place]))
        rtol = 0.1 if stored.experiment == "navigation" else 1e-4
        np.testing.assert_allclose(of_seeds, expected, rtol=rtol)
