"""The benchmark's arithmetic, and that it runs. Timings have no place in tests."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.layers import cpu, groups
from jaxdl.types import Batch, Episode

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "scripts" / "peers"
PRODUCT = re.compile(
    r"dot_general.*contracting_dims = \[([\d, ]*)\] x.*"
    r": \(tensor<([\dx]*)xf32>.*-> tensor<([\dx]*)xf32>"
)


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PEERS)
    return importlib.import_module("works")


def product_flops(program: str) -> int:
    """FLOPs of all matrix products in a StableHLO program without loops."""
    total = 0
    for contracted, left, out in PRODUCT.findall(program):
        sizes = [int(size) for size in left.split("x")]
        terms = math.prod(sizes[int(axis)] for axis in contracted.split(","))
        total += 2 * terms * math.prod(map(int, out.split("x")))
    return total


@pytest.mark.parametrize(
    "name",
    [
        "sinusoid",
        "omniglot-1q",
        "omniglot-15q",
        "cifar-fs",
        pytest.param("cifar-fs-resnet12", marks=pytest.mark.slow),
    ],
)
def test_flops_are_those_of_the_program_that_jax_traces(
    works: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "GROUP", 2**40)  # a loop over groups would count once
    monkeypatch.setattr(cpu, "MOST", 0)  # all convolutions are matrix products
    work = works.WORKS[name]._replace(inner_steps=1)
    loss = cross_entropy if work.images else mean_squared_error
    learner = maml(
        importlib.import_module("jaxdl_maml").net(work), loss, tx=optax.sgd(0.1), steps=1
    )

    def examples(each: int) -> Batch:
        n = work.ways * each
        y = jnp.zeros(n, jnp.int32) if work.images else jnp.zeros((n, 1))
        return Batch(jnp.zeros((n, *work.shape)), y)

    episode = Episode(examples(work.shots), examples(work.queries))
    key = jax.random.key(0)
    params = jax.eval_shape(learner.init, key, episode.support.x)
    program = jax.jit(learner.grad).lower(key, jnp.int32(0), params, episode).as_text()
    assert len(PRODUCT.findall(program)) == program.count("dot_general")
    assert work.tasks * product_flops(program) == works.step_flops(work)


def test_each_inner_step_costs_the_same(works: ModuleType) -> None:
    work = works.WORKS["omniglot-20way"]
    none, one, five = (works.step_flops(work._replace(inner_steps=n)) for n in (0, 1, 5))
    assert five - none == 5 * (one - none)


def supervised_programs(name: str) -> tuple[str, Any]:
    """The gradient of a supervised work by jaxdl as a program, and the work."""
    works = importlib.import_module("works")
    peer = importlib.import_module("jaxdl_supervised")
    work = works.WORKS[name]
    model = peer.net(work)
    x = jnp.zeros((work.batch, *work.images.shape))
    params, stats = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params: Any, stats: Any, x: Any) -> Any:
        y, _ = model.apply(params, stats, x, mode="train")
        return cross_entropy(y, jnp.zeros(work.batch, jnp.int32))[0]

    return jax.jit(jax.grad(loss)).lower(params, stats, x).as_text(), work


def test_flops_of_the_mlp_are_those_of_the_program_that_jax_traces(works: ModuleType) -> None:
    program, work = supervised_programs("mnist-mlp")
    assert product_flops(program) == works.step_flops(work)


def test_flops_of_resnet18_are_those_that_others_count(works: ModuleType) -> None:
    """The counts of its authors and of the CIFAR form, in multiply-adds of one image, forward."""
    paper = sum(works.resnet18_flops([works.conv_flops(112, 7, 3, 64)], 56, 1000)) / 2
    assert paper == pytest.approx(1.8e9, rel=0.02)  # arXiv:1512.03385, table 1
    cifar = sum(works.layer_flops(works.WORKS["resnet18-cifar-stem"])) / 2
    assert cifar == pytest.approx(0.56e9, rel=0.01)  # what kuangliu/pytorch-cifar's net takes


def test_flops_of_the_lstm_are_those_of_its_equations(works: ModuleType) -> None:
    work = works.WORKS["lstm"]
    gates, rows = 4 * works.CELLS, 28
    forward = rows * 28 * gates + (rows - 1) * works.CELLS * gates + works.CELLS * works.TARGETS
    assert works.step_flops(work) == 2 * work.batch * (3 * forward - rows * 28 * gates)


def test_flops_of_a_table_are_those_of_the_program_that_jax_traces(works: ModuleType) -> None:
    peer, work = importlib.import_module("jaxdl_tables"), works.WORKS["tables"]
    learner, episode = peer.learner(work), peer.of_memory(work)(jax.random.key(0))
    params = jax.eval_shape(learner.init, jax.random.key(0), episode.support.x)

    def grad(params: Any, episode: Any) -> Any:
        return learner.grad(jax.random.key(0), jnp.int32(0), params, episode)[0]

    traced = product_flops(jax.jit(grad).lower(params, episode).as_text())
    # The votes and the label's layer, which are another decoder than nanoTabPFN's.
    assert 1 < traced / (works.step_flops(work) / work.batch) < 1.02


@pytest.mark.parametrize(
    ("seconds", "verdicts"),
    [
        ({"torch.DataLoader": 6.0, "torch.indexed": 1.4}, ["reached", "missed"]),
        ({"torch.indexed": 1.6}, ["reached"]),
    ],
)
def test_marks_are_judged_by_the_fastest_form(
    works: ModuleType, seconds: dict[str, float], verdicts: list[str]
) -> None:
    benchmark = importlib.import_module("benchmark")
    rows = [{"peer": "jaxdl", "median_s": 1e-3, "over_jaxdl": 1.0}]
    for peer, ratio in seconds.items():
        rows.append({"peer": peer, "median_s": 1e-3 * ratio, "over_jaxdl": ratio})
        rows.append({"peer": peer, "median_s": 1.0, "over_jaxdl": 1e3})  # a slower form
    epoch, marks = benchmark.judged(works.WORKS["mnist-mlp"], rows)
    assert "jaxdl 0.938 s" in epoch
    assert re.findall("reached|missed", marks) == verdicts


def test_every_work_has_jaxdl_and_peers_that_exist(works: ModuleType) -> None:
    benchmark = importlib.import_module("benchmark")
    for work in works.WORKS.values():
        peers = benchmark.peers_of(work)
        assert {"jaxdl"} < peers.keys() <= set(benchmark.PEERS)
        assert all((PEERS / peer.script).is_file() for peer in peers.values())


@pytest.mark.parametrize("work", ["sinusoid", pytest.param("mnist-mlp", marks=pytest.mark.slow)])
def test_a_quick_benchmark_of_jaxdl_alone(tmp_path: Path, work: str) -> None:
    figures = tmp_path / "figures.json"
    done = quick(figures, "--works", work, "--peers", "jaxdl")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(figures.read_text())["results"]
    (row,) = result["rows"]
    assert row["peer"] == "jaxdl"
    assert len(row["seconds_per_step"]) == 2
    assert math.isfinite(row["loss"])
    assert row["over_jaxdl"] == 1
    assert not result["failed"]
    assert "| jaxdl" in done.stdout


def test_peers_that_do_not_know_the_work_are_refused(tmp_path: Path) -> None:
    done = quick(tmp_path / "figures.json", "--works", "lstm", "--peers", "torchopt")
    assert done.returncode == 2
    assert "none knows lstm" in done.stderr


@pytest.mark.slow
def test_a_quick_benchmark_of_all_supervised_works(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    works = ["mnist-mlp", "cifar-lenet", "resnet18-imagenet-stem", "resnet18-cifar-stem", "lstm"]
    done = quick(figures, "--works", *works, "--peers", "jaxdl")
    assert done.returncode == 0, done.stderr
    for result in json.loads(figures.read_text())["results"]:
        assert not result["failed"]
        assert math.isfinite(result["rows"][0]["loss"])


def quick(figures: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A quick race; its figures go to the file."""
    return subprocess.run(
        [sys.executable, PEERS / "benchmark.py", "--quick", "--json", figures, *flags],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
