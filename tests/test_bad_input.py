"""Wrong uses, a row each: one sentence, the right exit code, and every file still there.

A row is (name, command, what lies there before, exit code, words of the sentence). In commands and
words, {folder} is the folder of the test, where `RUN` makes the run `a` of sinusoid.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import few_shot, sinusoid
from jaxdl.data.episodes import few_shot as episodes_of
from jaxdl.errors import InputError
from jaxdl.recipes import prepare
from jaxdl.recipes.few_shot import learner_of_sines
from jaxdl.runs import cli
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import flat
from jaxdl.runs.identity import record_config
from jaxdl.runs.run import RunFlags, open_run
from jaxdl.train.steps import init_states

ROOT = Path(__file__).resolve().parents[1]


# ---- what lies there before


def nothing(folder):
    """An empty folder."""


def a_file(folder):
    (folder / "file").write_text("mine")


def file_as_run(folder):
    (folder / "sinusoid").mkdir()
    (folder / "sinusoid" / "a").write_text("mine")


def run(folder):
    """A run of sinusoid with a checkpoint after 2 of 4 steps, saved once for all tests."""
    config = sinusoid.Config(steps=4, tasks=2, test_tasks=2, run=RunFlags(runs_dir=folder))
    directory = folder / "sinusoid" / "a"
    directory.mkdir(parents=True)
    record_config(directory, config)
    shutil.copytree(CHECKPOINTS["folder"], directory / "checkpoints")
    return directory


CHECKPOINTS = {}


@pytest.fixture(scope="module", autouse=True)
def checkpoint(tmp_path_factory):
    CHECKPOINTS["folder"] = tmp_path_factory.mktemp("saved") / "checkpoints"
    learner = learner_of_sines(flat(sinusoid.Config()))
    keys = jax.vmap(jax.random.key)(jnp.arange(1))
    state = init_states(lambda key: learner.init(key, jnp.zeros((1, 1))), keys, optax.adam(0.001))
    notes = {"seconds": 1.0, "compile_seconds": 1.0, "window": {"count": 0, "sums": {}}}
    with Checkpoints(CHECKPOINTS["folder"]) as checkpoints:
        checkpoints.save(2, state._replace(step=jnp.int32(2)), notes)


def finished(folder):
    result = {"run": {"steps": 4}}
    (run(folder) / "result.json").write_text(json.dumps(result))


def half_a_result(folder):
    finished(folder)
    path = folder / "sinusoid" / "a" / "result.json"
    path.write_bytes(path.read_bytes()[:-3])


def empty_result(folder):
    (run(folder) / "result.json").write_text("{}")


def half_a_config(folder):
    path = run(folder) / "config.yaml"
    path.write_bytes(path.read_bytes()[:30] + b"\n  - {")


def binary_config(folder):
    (run(folder) / "config.yaml").write_bytes(bytes(range(256)))


def no_config(folder):
    (run(folder) / "config.yaml").unlink()


def truncated_checkpoint(folder):
    files = [path for path in (run(folder) / "checkpoints" / "2").rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_net(folder):
    directory = run(folder)
    shutil.rmtree(directory / "checkpoints")
    with Checkpoints(directory / "checkpoints") as checkpoints:
        checkpoints.save(2, {"step": np.array(2)}, {})


def corrupt_cache(folder):
    path = folder / "arrays" / "omniglot" / "3.0.0" / "area28.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 and no more")


# ---- the table

FLAGS = "--tasks 2 --test-tasks 2 --devices 1 --runs-dir {folder}"
SINUSOID = f"sinusoid {FLAGS} --steps 4"
RUN = f"{SINUSOID} --name a"
FEW_SHOT = "few_shot --devices 1 --runs-dir {folder} --filters 2 --tasks 4"


class Row(NamedTuple):
    name: str
    command: str
    before: object
    code: int
    words: str


TABLE = [
    # Flags.
    Row("no such flag", f"{SINUSOID} --momentum 3", nothing, 2, "Unrecognized options: --momentum"),
    Row("misspelt flag", "sinusoid --stepz 3", nothing, 2, "Perhaps you meant: --steps"),
    Row("a word for a number", "sinusoid --steps many", nothing, 2, "--steps INT"),
    Row("a fraction of a step", "sinusoid --steps 1.5", nothing, 2, "--steps INT"),
    Row("a word for a rate", "sinusoid --lr fast", nothing, 2, "--lr FLOAT"),
    Row("no value", "sinusoid --lr", nothing, 2, "--lr"),
    Row("no such choice", "sinusoid --estimator best", nothing, 2, "invalid choice 'best'"),
    Row("no such preset", "few_shot --preset mnist", nothing, 2, "no --preset 'mnist'. Choose one"),
    Row("preset without name", "few_shot --preset", nothing, 2, "Choose one of numbers-5way-1shot"),
    Row("no such data", "few_shot --data mnist", nothing, 2, "invalid choice 'mnist'"),
    # Numbers.
    Row("no steps", f"{SINUSOID} --steps 0", nothing, 2, "--steps 0: choose at least 1"),
    Row("negative steps", f"{SINUSOID} --steps=-1", nothing, 2, "--steps -1: choose at least 1"),
    Row("steps beyond int32", f"{SINUSOID} --steps 9999999999", nothing, 2, "choose at most"),
    Row("no tasks", f"{SINUSOID} --tasks 0", nothing, 2, "--tasks 0: choose at least 1"),
    Row("no seeds", f"{SINUSOID} --seeds 0", nothing, 2, "--seeds 0: choose at least 1"),
    Row("negative shots", f"{SINUSOID} --shots=-2", nothing, 2, "--shots -2: choose at least 1"),
    Row("negative inner steps", f"{SINUSOID} --inner-steps=-1", nothing, 2, "--inner-steps -1"),
    Row("one test task", f"{SINUSOID} --test-tasks 1", nothing, 2, "--test-tasks 1: choose at le"),
    Row("no log", f"{SINUSOID} --log-every 0", nothing, 2, "--log-every 0: choose at least 1"),
    Row("negative clock", f"{SINUSOID} --save-minutes=-1", nothing, 2, "--save-minutes -1.0"),
    Row("no clock", f"{SINUSOID} --save-minutes nan", nothing, 2, "--save-minutes nan"),
    Row("negative seed", f"{SINUSOID} --seed=-1", nothing, 2, "--seed -1: choose at least 0"),
    Row(
        "a test key as seed", f"{SINUSOID} --seed 1000001", nothing, 2, "--seed 1000001: choose at"
    ),
    Row("NaN as rate", f"{SINUSOID} --lr nan", nothing, 2, "--lr nan: choose a number above 0"),
    Row("negative rate", f"{SINUSOID} --lr=-1", nothing, 2, "--lr -1.0: choose a number above 0"),
    Row("infinite rate", f"{SINUSOID} --lr inf", nothing, 2, "--lr inf: choose a number above 0"),
    Row("no inner rate", f"{SINUSOID} --inner-lr 0", nothing, 2, "--inner-lr 0.0: choose"),
    Row("one way", f"{FEW_SHOT} --ways 1", nothing, 2, "--ways 1: choose at least 2"),
    Row("no queries", f"{FEW_SHOT} --queries 0", nothing, 2, "--queries 0: choose at least 1"),
    Row("no filters", f"{FEW_SHOT} --filters 0", nothing, 2, "--filters 0: choose at least 1"),
    Row("NaN as clip", f"{FEW_SHOT} --clip nan", nothing, 2, "--clip nan: choose at least 0"),
    Row("one test episode", f"{FEW_SHOT} --test-episodes 1", nothing, 2, "--test-episodes 1"),
    Row("odd validation", f"{FEW_SHOT} --eval-every 70", nothing, 2, "70 must be a multiple of"),
    Row(
        "Omniglot's way to resize for numbers",
        f"{FEW_SHOT} --omniglot-resize nearest",
        nothing,
        2,
        "--omniglot-resize nearest is for Omniglot, and the data are numbers. Leave it out, or"
        " choose --data omniglot",
    ),
    Row("few_shot logs never", f"{FEW_SHOT} --log-every 0", nothing, 2, "--log-every 0"),
    # Numbers that do not fit the data or the machine.
    Row("ways > classes", f"{FEW_SHOT} --ways 500", nothing, 2, "ways=500, but there are only"),
    Row("examples", f"{FEW_SHOT} --shots 999", nothing, 2, "shots=999 and queries=5 need 1004"),
    Row("chunk", f"{FEW_SHOT} --chunk 3", nothing, 2, "chunk=3 does not divide 4 tasks"),
    Row("devices", f"{SINUSOID} --devices 9", nothing, 2, "--devices 9: choose 0 (all) to 4"),
    Row("negative devices", f"{SINUSOID} --devices=-1", nothing, 2, "--devices -1: choose 0"),
    Row("tasks by devices", f"{SINUSOID} --devices 4", nothing, 2, "2 tasks do not divide among 4"),
    Row("divergence", f"{SINUSOID} --lr 1e30", nothing, 1, "training diverged: the loss is not fi"),
    # Several processes.
    Row("no count", f"{SINUSOID} --coordinator a:1", nothing, 2, "need --coordinator HOST:PORT"),
    Row("no coordinator", f"{SINUSOID} --processes 2", nothing, 2, "need --coordinator HOST:PORT"),
    Row(
        "process of none",
        f"{SINUSOID} --coordinator a:1 --processes 2 --process 2",
        nothing,
        2,
        "(0 <= I < N)",
    ),
    Row(
        "no port",
        f"{SINUSOID} --coordinator host --processes 2 --process 0",
        nothing,
        2,
        "need --coordinator HOST:PORT",
    ),
    # The run directory.
    Row("name with a slash", f"{SINUSOID} --name x/y", nothing, 2, "--name 'x/y' must be a plain"),
    Row("name upwards", f"{SINUSOID} --name ..", nothing, 2, "--name '..' must be a plain"),
    Row("name of here", f"{SINUSOID} --name .", nothing, 2, "--name '.' must be a plain"),
    Row("too long a name", f"{SINUSOID} --name {'n' * 300}", nothing, 2, "too long"),
    Row("runs in a file", f"{SINUSOID} --runs-dir {{folder}}/file", a_file, 2, "file is a file"),
    Row("below a file", f"{SINUSOID} --runs-dir {{folder}}/file/b", a_file, 2, "file is a file"),
    Row("a file as run", RUN, file_as_run, 2, "a is a file, not a folder"),
    Row("another rate", f"{RUN} --lr 0.5", run, 2, "was made with --lr 0.001, not 0.5"),
    Row("more tasks", f"{RUN} --tasks 3", finished, 2, "was made with --tasks 2, not 3"),
    Row("fewer steps", f"{RUN} --steps 3", finished, 2, "has already done 4 steps"),
    Row("fewer than saved", f"{RUN} --steps 1", run, 2, "has already done 2 steps"),
    Row("half a config.yaml", RUN, half_a_config, 1, "config.yaml is damaged"),
    Row("binary config.yaml", RUN, binary_config, 1, "config.yaml is damaged"),
    Row("no config.yaml", RUN, no_config, 1, "has checkpoints and no config.yaml"),
    Row("half a result.json", RUN, half_a_result, 1, "result.json cannot be read"),
    Row("empty result.json", RUN, empty_result, 1, "it does not say how many steps"),
    Row("truncated checkpoint", RUN, truncated_checkpoint, 1, "checkpoints/2 cannot be read"),
    Row("another net", RUN, other_net, 1, "is of another net or optimiser"),
    # Data.
    Row("no data", f"{FEW_SHOT} --data omniglot", nothing, 2, "jaxdl prepare omniglot"),
    Row(
        "no data folder",
        f"{FEW_SHOT} --data cifar_fs --data-dir {{folder}}/none",
        nothing,
        2,
        "cifar100 is not in {folder}/none. Run `jaxdl prepare cifar100`",
    ),
    Row(
        "a file as data folder",
        f"{FEW_SHOT} --data omniglot --data-dir {{folder}}/file",
        a_file,
        2,
        "is a file. Let --data-dir name a folder",
    ),
    Row(
        "corrupt cache",
        f"{FEW_SHOT} --data omniglot --data-dir {{folder}}",
        corrupt_cache,
        1,
        "area28.npz cannot be read",
    ),
    Row("prepare nothing", "prepare", nothing, 2, "required"),
    Row("prepare what?", "prepare imagenet --data-dir {folder}", nothing, 2, "tfds build imagenet"),
    Row(
        "prepare from an empty folder",
        "prepare omniglot --from {folder} --data-dir {folder}/data",
        nothing,
        2,
        "images_background.zip",
    ),
    Row(
        "prepare from nowhere",
        "prepare mnist --from {folder}/none --data-dir {folder}/data",
        nothing,
        2,
        "none",
    ),
    Row(
        "prepare into a file",
        "prepare mnist --from {folder} --data-dir {folder}/file",
        a_file,
        2,
        "is a file",
    ),
]
ROWS = {row.name: row for row in TABLE}


def call(command):
    """Runs a command line in this process; returns its exit code."""
    program, *arguments = command
    try:
        if program == "prepare":
            return prepare.main(arguments)
        experiment = {"sinusoid": sinusoid, "few_shot": few_shot}[program]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [program, *arguments])
            patch.setattr(cli, "_use_compilation_cache", lambda: None)
            options = {
                "presets": getattr(experiment, "PRESETS", None),
                "complete": experiment.complete,
            }
            cli.command_line(experiment.main, experiment.Config, **options)
    except SystemExit as stop:
        return stop.code
    return 0


def command_of(row, folder):
    return [word.format(folder=folder) for word in row.command.split()]


def contents(folder):
    """Every file but the locks, which a refused request may touch."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path: path.read_bytes() for path in files}


def check_sentence(row, folder, errors):
    words = row.words.format(folder=folder)
    assert "Traceback" not in errors
    if "╭" in errors:  # the box of the command-line parser, broken into lines
        assert words in re.sub(r"[\s│╭╰─]+", " ", errors)
        return
    # Where work has begun, lines of progress come before the sentence.
    *others, last = errors.strip().splitlines()
    assert re.match("error: .*" + re.escape(words), last), errors
    assert not [line for line in others if not line.startswith(("compiled in", "resuming"))], errors


@pytest.mark.parametrize("name", ROWS)
def test_one_sentence_the_right_code_and_nothing_lost(name, tmp_path, capfd):
    row = ROWS[name]
    row.before(tmp_path)
    before = contents(tmp_path)
    code = call(command_of(row, tmp_path))
    captured = capfd.readouterr()
    check_sentence(row, tmp_path, captured.err)
    assert code == row.code
    assert row.command.startswith("prepare") or not captured.out
    assert before.items() <= contents(tmp_path).items()


def test_the_table_is_long_and_its_names_are_unique():
    assert len(ROWS) == len(TABLE) >= 30


@pytest.mark.parametrize("name", ["misspelt flag", "ways > classes", "fewer steps", "no port"])
def test_the_same_in_a_process_of_its_own(name, tmp_path):
    row = ROWS[name]
    row.before(tmp_path)
    before = contents(tmp_path)
    program, *arguments = command_of(row, tmp_path)
    process = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    check_sentence(row, tmp_path, process.stderr)
    assert process.returncode == row.code
    assert before.items() <= contents(tmp_path).items()


def test_missing_data_are_told_at_once_and_without_tfds(tmp_path):
    code = f"""
import sys, time
from experiments import few_shot
from jaxdl.runs import cli
sys.argv = "few_shot --data omniglot --devices 1 --runs-dir {tmp_path}".split()
try:
    options = {{"presets": few_shot.PRESETS, "complete": few_shot.complete}}
    cli.command_line(few_shot.main, few_shot.Config, **options)
finally:
    slow = [name for name in ("tensorflow_datasets", "grain", "orbax", "sklearn", "matplotlib")
            if name in sys.modules]
    print(time.process_time(), *slow)
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "JAXDL_DATA": str(tmp_path / "data")},
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: omniglot is not in")
    assert process.stderr.count("\n") == 1
    seconds, *slow = process.stdout.split()
    assert not slow
    # The mark of 2 s is of wall time on a quiet machine; processor time is steadier.
    assert float(seconds) < 4


def test_a_run_in_use(tmp_path, capfd):
    run(tmp_path)
    config = sinusoid.Config(
        steps=4, tasks=2, test_tasks=2, run=RunFlags(runs_dir=tmp_path, name="a", devices=1)
    )
    with open_run("sinusoid", config):
        before = contents(tmp_path)
        assert call(RUN.format(folder=tmp_path).split()) == 1
        assert contents(tmp_path) == before
    assert re.match(r"error: .* is in use by process \d+", capfd.readouterr().err)


def test_tensorboard_that_is_not_installed(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert call(f"{SINUSOID} --tensorboard".format(folder=tmp_path).split()) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: tensorboardX is not installed. Install it: pip install")
    assert errors.count("\n") == 1


# ---- the calls of the library


IMAGES, LABELS = np.zeros((8, 4, 4, 1), np.uint8), np.repeat(np.arange(4), 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.full((8, 4), np.nan, np.float32)}, "NaN"),
        ({"x": IMAGES[:7]}, "7 examples and 8 labels make no data set"),
        ({"x": IMAGES.astype(complex)}, "must be numbers or bools"),
        ({"labels": LABELS.astype(float)}, "must be integers"),
        ({"ways": 5}, "only 4 classes"),
        ({"shots": 2}, "need 3 examples"),
        ({"shots": 1.5}, "whole number"),
        ({"rotations": "mirror"}, "is not one of"),
        ({"x": np.zeros((8, 4, 5)), "rotations": "augment"}, "square"),
    ],
)
def test_own_data_that_cannot_give_episodes(changes, words):
    right = {"x": IMAGES, "labels": LABELS, "ways": 4, "shots": 1, "queries": 1}
    with pytest.raises(InputError, match=words):
        episodes_of(**(right | changes))
