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

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.conv4 import conv4_omniglot
from jaxdl.models.mlp import mlp
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


@pytest.mark.parametrize("name", ["sinusoid", "omniglot-1q", "omniglot-15q"])
def test_flops_are_those_of_the_program_that_jax_traces(works: ModuleType, name: str) -> None:
    work = works.WORKS[name]
    model = conv4_omniglot(work.ways) if work.conv else mlp((*works.HIDDEN, 1))
    loss = cross_entropy if work.conv else mean_squared_error
    learner = maml(model, loss, tx=optax.sgd(0.1), steps=1)

    def examples(each: int) -> Batch:
        n = work.ways * each
        if work.conv:
            return Batch(jnp.zeros((n, works.SIDE, works.SIDE, 1)), jnp.zeros(n, jnp.int32))
        return Batch(jnp.zeros((n, 1)), jnp.zeros((n, 1)))

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


def test_a_quick_benchmark_of_jaxdl_alone(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, PEERS / "benchmark.py", "--quick", "--json", figures]
    done = subprocess.run(
        [*command, "--works", "sinusoid", "--peers", "jaxdl"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(figures.read_text())["results"]
    (row,) = result["rows"]
    assert row["peer"] == "jaxdl"
    assert len(row["seconds_per_step"]) == 2
    assert math.isfinite(row["loss"])
    assert row["over_jaxdl"] == 1
    assert not result["failed"]
    assert "| jaxdl" in done.stdout
