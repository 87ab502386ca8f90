"""`scripts/torture`: what it compares, what it leaves out, and a tiny run of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_run

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # the modules there are no package

import _stored  # noqa: E402
import _torture  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_run.validated(tiny_run.config(folder, save_minutes=0.0, log_every=4))
    return folder / "tiny" / "a"


@pytest.fixture
def other(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "b"))


def changed(path, **values):
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **values}))


def test_all_experiments_are_tortured():
    names = {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")}
    assert set(_torture.TINY) == names


def test_where_and_when_a_run_was_made_is_left_out(whole, other):
    changed(other / "result.json", run={"wall_seconds": 9}, config={"run": {"name": "b"}})
    changed(whole / "result.json", config={"run": {"name": "a"}})
    time = {"step": 4, "split": "time", "ms_per_step": 3.5}
    with (other / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(time) + "\n")
    oldest, _ = sorted((other / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(oldest)
    assert _stored.differences(whole, other) == []


def test_each_thing_that_differs_is_named(whole, other):
    """Planted bug: a comparison that skips arrays, lines or result.json."""
    changed(other / "result.json", steps=[0, 0])
    lines = (other / "metrics.jsonl").read_text().splitlines()
    (other / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    np.savez(other / "replay.npz", x=np.zeros(2))
    longer = tiny_run.config(other.parent / "longer", steps=7, log_every=4)
    tiny_run.validated(longer)
    for name in ("best", "checkpoints"):
        shutil.rmtree(other / name)
        shutil.copytree(other.parent / "longer" / "tiny" / "a" / name, other / name)
    found = _stored.differences(whole, other)
    assert {"checkpoints, step", "metrics.jsonl", "replay.npz, x", "result.json"} <= set(found)
    assert any(name.startswith("checkpoints, ") and name.endswith("w") for name in found), found


def test_kills_are_shared_among_all_and_more_go_to_the_quick():
    found = _torture.shares(100, [10.0, 100.0, 50.0, 50.0])
    assert sum(found) == 100
    assert found[0] == max(found)
    assert min(found) >= 100 // 12


@pytest.mark.slow
def test_two_kills_of_a_run(tmp_path):
    command = [
        sys.executable,
        "-P",
        ROOT / "scripts" / "_torture.py",
        "--kills",
        "2",
        "--seed",
        "1",
    ]
    done = subprocess.run(
        [*command, "--only", "mnist", "--no-faults"],
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/scripts", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| mnist"))
    assert row.split("|")[3].strip() == "2"
    assert row.split("|")[-2].strip() == "0"
