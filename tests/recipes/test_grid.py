"""The runs of a grid are those of its commands: state, log, best parameters, and what stops them.

The experiment is tiny: a dense net on sine waves. Its single command is `meta_train`.
"""

import dataclasses
import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import parallel
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.recipes import grid_training
from jaxdl.recipes.grid import Experiment, _found, run_grid
from jaxdl.recipes.grid_training import DIVERGED, Plan
from jaxdl.recipes.meta_training import meta_train, validation_of
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import Positive, RunFlags, Seeds, Start
from jaxdl.runs.grid import asked
from jaxdl.runs.journal import Journal
from jaxdl.runs.run import open_run
from jaxdl.runs.signals import Interrupted
from jaxdl.runs.stored import load_best
from jaxdl.train.streams import run_keys

SAMPLE, X = sinusoid(shots=4, queries=4), jnp.zeros((2, 1))


@dataclasses.dataclass(frozen=True)
class Method:
    inner_lr: Positive = 0.01
    clip: float = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 20
    lr: Positive = 0.01
    width: int = 8
    method: Method = Method()
    start: Start = Start()
    random: Seeds = Seeds(seeds=2)
    run: RunFlags = RunFlags()


def parts(config: Config) -> Any:
    tx = optax.clip(config.method.clip) if config.method.clip else optax.identity()
    tx = optax.chain(tx, optax.sgd(config.method.inner_lr))
    learner = maml(mlp((config.width, 1)), mean_squared_error, tx=tx, steps=1)
    return learner, learner, optax.adam(config.lr)


def plan(config: Config) -> Plan:
    del config
    options: dict[str, Any] = {"x": X, "tasks": 2, "key": jax.random.key(9), "episodes": 4}
    options |= {"metric": "loss", "eval_every": 10}
    return Plan(parts, mean_squared_error, SAMPLE, SAMPLE, **options)


def frame(config: Config) -> dict[str, Any]:
    del config
    nothing = lambda *_: None  # noqa: E731
    return {"label": "tiny", "check": nothing, "prepare": nothing, "contents": {}}


def alone(config: Config) -> Path:
    """The command of one configuration."""
    learner, _, tx = parts(config)
    with open_run("tiny", config, label="tiny") as run:
        validate = validation_of(
            learner,
            mean_squared_error,
            SAMPLE,
            key=jax.random.key(9),
            episodes=4,
            steps=None,
            chunk=None,
        )
        keys = run_keys(config.random.seed, config.random.seeds)
        options: dict[str, Any] = {"tx": tx, "keys": keys, "x": X, "tasks": 2, "chunk": None}
        options |= {"validate": validate, "eval_every": 10, "best": "loss"}
        meta_train(run, learner, SAMPLE, **options)
        return run.directory


def grid(folder: Path, words: str, main: Any = lambda config: None, **fields: Any) -> Any:
    """`run_grid` of what a command line asks for."""
    flags = RunFlags(runs_dir=folder, log_every=5, devices=1)
    default = Config(run=flags, **fields)
    found = asked(words.split(), default)
    configs = []
    for values in found.values():
        numbers = {name: type(getattr(default, name, 0.1))(v) for name, v in values.items()}
        own = {name: numbers.pop(name) for name in ("inner_lr", "clip") if name in numbers}
        method = dataclasses.replace(default.method, **own)
        configs.append(dataclasses.replace(default, method=method, **numbers))
    begin = lambda config, run: None  # noqa: E731
    return configs, run_grid(Experiment("tiny", main, frame, plan, begin), configs, found)


def arrays(directory: Path) -> list[np.ndarray]:
    with Checkpoints(directory) as checkpoints:
        return [array for _, array in checkpoints.arrays()]


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_run_of_a_grid_is_the_run_of_its_command(tmp_path, capsys):
    """To the rounding of float32 after 20 steps; and the command of one goes on and tests it.

    Of lr 1e30 the first step overflows. Those runs stop alone.
    Planted bugs: values in another order than the runs; one key for all seeds; the lr of the first.
    """
    tested: list[Config] = []
    configs, rows = grid(tmp_path / "grid", "--lr 1e30 0.1 --inner-lr 0.01 0.1", tested.append)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 6
    assert [row.note for row in rows] == ["diverged", "diverged", "", ""]
    assert "not finite at step" in (Path(rows[0].directory) / DIVERGED).read_text()
    flags = dataclasses.replace(configs[3].run, runs_dir=tmp_path / "alone")
    one, other = Path(rows[3].directory), alone(dataclasses.replace(configs[3], run=flags))
    assert one.name == other.name
    for kind in ("checkpoints", "best"):
        for a, b in zip(arrays(one / kind), arrays(other / kind), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(lines(one), lines(other), strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    of_steps = [line["loss"] for line in lines(other) if line["split"] == "validation"]
    np.testing.assert_allclose(rows[3].found, np.min(of_steps, axis=0), rtol=1e-4)
    like = jax.eval_shape(parts(configs[0])[0].init, jax.random.key(0), X)
    like = jax.tree.map(lambda leaf: np.zeros((2, *leaf.shape), leaf.dtype), like)
    assert set(load_best(one, like)[1].tolist()) <= {10, 20}
    best = 2 + int(np.argmin([np.mean(row.found) for row in rows[2:]]))
    assert tested == [configs[best]]
    assert table[2 + best].split("|")[5].strip() == "best"
    folder = next((tmp_path / "grid" / "tiny").glob("grid-*"))
    assert {path.name for path in folder.iterdir()} == {"grid.json", "grid.png"}
    assert json.loads((folder / "grid.json").read_text())["best"] == best


@pytest.mark.slow
def test_shards_merge(tmp_path, monkeypatch):
    words, tested = "--lr 0.01 1e30 0.1", []
    _, rows = grid(tmp_path, f"{words} --shard 1/2", tested.append)
    assert [row.note for row in rows] == ["", "not yet", ""]
    _, rows = grid(tmp_path, f"{words} --shard 2/2", tested.append)
    assert [row.note for row in rows] == ["", "diverged", ""]
    assert not tested
    monkeypatch.setattr("jaxdl.recipes.grid.train_grid", None)  # nothing is left to train
    configs, rows = grid(tmp_path, words, tested.append)
    assert [len(row.found) for row in rows] == [2, 0, 2]
    assert tested[0] in (configs[0], configs[2])
    assert alone(configs[0]) == Path(rows[0].directory)  # its command goes on at the end


@pytest.mark.slow
def test_stopped_and_resumed_runs_equal_those_that_never_stopped(tmp_path, monkeypatch):
    """Bit for bit."""
    words = "--lr 0.01 1e30 0.1"
    _, rows = grid(tmp_path / "whole", words)
    inner = grid_training.loop

    def stopping(*args: Any, **options: Any) -> Any:
        for i, state, metrics in inner(*args, **options):
            if i == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield i, state, metrics

    monkeypatch.setattr(grid_training, "loop", partial(stopping, seconds=0.0))
    with pytest.raises(Interrupted, match="saved at step 5 of 20"):
        grid(tmp_path / "stopped", words)
    monkeypatch.undo()
    _, again = grid(tmp_path / "stopped", words)
    for one, other in zip(rows[::2], again[::2], strict=True):
        assert one.found == other.found
        for a, b in zip(*(arrays(Path(r.directory) / "best") for r in (one, other)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--width 4 8", "in one program only lr, inner_lr, clip can vary"),
        ("--clip 0.1 0.2", "`clip=` decides more than numbers in the program"),
        ("--lr 0.1 -1", "`lr=-1.0`: choose a number above 0"),
    ],
)
def test_what_cannot_vary_is_refused(tmp_path, words, says):
    with pytest.raises(InputError, match=says):
        grid(tmp_path, words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "joining", lambda *_: ("host:1", 2, 0))
    with pytest.raises(InputError, match="Give each process a part by --shard I/N"):
        grid(tmp_path, "--lr 0.1 0.2")


@pytest.mark.parametrize(("metric", "best"), [("loss", 0.4), ("accuracy", 0.5)])
def test_a_validation_that_is_nan_is_the_worst(metric, best, tmp_path):
    journal = Journal(tmp_path)
    for step, value in enumerate([0.5, float("nan"), 0.4], start=1):
        journal.append(step, "validation", {metric: [value]})
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    cell = SimpleNamespace(directory=tmp_path, config=SimpleNamespace(steps=3))
    assert _found(cell, SimpleNamespace(metric=metric, keeps_best=True)) == (True, [best])
