"""Grids as commands: Slurm's array, the experiments that have none, and runs equal to their own."""

import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from experiments import few_shot, mnist, sinusoid
from jaxdl.recipes.few_shot import learner_of_sines
from jaxdl.runs import cli
from jaxdl.runs.config import flat
from jaxdl.runs.grid import asked
from jaxdl.runs.run import open_run
from tests.project import ROOT

SHORT = [
    *["--steps", "6", "--eval-every", "3", "--log-every", "1", "--eval-episodes", "4"],
    *["--test-episodes", "2", "--pretraining-steps", "0", "--filters", "4", "--tasks", "2"],
    *["--devices", "1"],
]


def slurm(folder: Path, run: str, *words: str, part: int, parts: int) -> Any:
    """The body of the batch file as Slurm calls it: a copy, with the variables of an array."""
    (folder / "scripts").mkdir(exist_ok=True)
    script, copy = folder / "scripts" / "run", folder / "slurm_script"
    script.write_text(f"#!/usr/bin/env bash\n{run}\n")
    copy.write_text((ROOT / "scripts" / "grid.sbatch").read_text())
    for path in (script, copy):
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    given = {"SLURM_SUBMIT_DIR": folder, "SLURM_ARRAY_TASK_ID": part, "SLURM_NTASKS": 1}
    given["SLURM_ARRAY_TASK_COUNT"] = parts
    environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
    return subprocess.run([copy, *words], env=environment, text=True, capture_output=True)


def test_a_job_of_an_array_takes_its_part_and_keeps_words_whole(tmp_path):
    done = slurm(tmp_path, 'printf "<%s>" "$@"', "few_shot", "--path", "a b", part=2, parts=4)
    assert done.stdout == "<few_shot><--path><a b><--shard><2/4>", done.stderr
    options = (ROOT / "scripts" / "grid.sbatch").read_text().splitlines()
    assert "#SBATCH --array=1-4" in options
    assert "#SBATCH --signal=B:TERM@120" in options


def command(module: Any, *words: str, **options: Any) -> int:
    """The exit code of an experiment's command line; 0 if it ends by itself."""
    with mock.patch("sys.argv", ["x", *words]), mock.patch("jax.config.update"):
        try:
            cli.command_line(module.main, module.Config, **options)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_an_experiment_without_a_grid_says_so(capsys):
    assert command(mnist, "--lr", "0.1", "0.2", presets=mnist.PRESETS) == 2
    said = "--lr has several values, and this experiment trains one configuration"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--filters 4 8", "--filters 4 8: in one program only lr, inner_lr can vary"),
        ("--shard 1/2", "--shard is a part of a grid"),
    ],
)
def test_a_wrong_grid_ends_in_a_sentence(capsys, tmp_path, words, says):
    options: dict[str, Any] = {"complete": few_shot.complete, "grid": few_shot.grid}
    words = [*words.split(), "--runs-dir", str(tmp_path)]
    assert command(few_shot, *words, **options) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_by_an_array_and_alone(tmp_path):
    """Two jobs, then the command of the whole, which tests the best; and one command for itself."""
    run = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m experiments."$@"'
    together = [*SHORT, "--lr", "0.001", "0.003", "--inner-lr", "0.01", "0.1"]
    together += ["--runs-dir", str(tmp_path / "grid")]
    for part in (1, 2):
        done = slurm(tmp_path, run, "few_shot", *together, part=part, parts=2)
        assert done.returncode == 0, done.stderr
        assert "tests the best" in done.stderr
    options: dict[str, Any] = {"text": True, "capture_output": True}
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT)}
    python = [sys.executable, "-P", "-m", "experiments.few_shot"]
    whole = subprocess.run([*python, *together], **options)
    assert whole.returncode == 0, whole.stderr
    assert "compiled in" not in whole.stderr  # nothing was left to train
    assert len(list((tmp_path / "grid" / "few_shot").glob("*/result.json"))) == 1
    alone = [*SHORT, "--lr", "0.003", "--inner-lr", "0.01", "--runs-dir", str(tmp_path / "alone")]
    done = subprocess.run([*python, *alone], **options)
    assert done.returncode == 0, done.stderr
    (one,) = (tmp_path / "alone" / "few_shot").iterdir()
    equal_lines(tmp_path / "grid" / "few_shot" / one.name, one)


@pytest.mark.slow
def test_a_run_of_sines_is_that_of_its_command(tmp_path, monkeypatch):
    """Whose pretraining and test are left out."""
    flags = sinusoid.RunFlags(runs_dir=tmp_path / "grid", log_every=5, devices=1)
    config = sinusoid.Config(steps=10, tasks=2, run=flags)
    words = ["--lr", "0.001", "0.003"]
    configs = [dataclasses.replace(config, lr=float(lr)) for lr in words[1:]]
    monkeypatch.setattr(sinusoid, "main", lambda config: None)
    sinusoid.grid(configs, asked(words, config))
    alone = dataclasses.replace(flags, runs_dir=tmp_path / "alone")
    config = dataclasses.replace(configs[1], run=alone)
    with open_run("sinusoid", config) as run:
        sinusoid.train(config, run, learner_of_sines(flat(config)))
    (one,) = (tmp_path / "alone" / "sinusoid").iterdir()
    equal_lines(tmp_path / "grid" / "sinusoid" / one.name, one)


def equal_lines(one: Path, other: Path) -> None:
    """The losses of training in two logs, to the rounding of a few steps."""
    found, expected = (
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (one, other)
    )
    found = [line for line in found if line["split"] == "train"]
    expected = [line for line in expected if line["split"] == "train"]
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-3)
