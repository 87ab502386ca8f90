"""The same meta-gradient as PyTorch's, in float64: nothing is shared but weights and data.

The two sides are two processes that exchange files, so each may live in its own environment.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.estimators import exact, first_order, mixed_mode, rematerialised
from jaxdl.meta.maml import maml
from jaxdl.models.conv4 import conv4_omniglot
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Grads, Model, Params

ROOT = Path(__file__).resolve().parents[2]
WAYS = 5
ESTIMATORS = {
    "exact": exact,
    "rematerialised": rematerialised,
    "mixed_mode": mixed_mode,
    "first_order": first_order,
}


class Case(NamedTuple):
    net: str
    steps: int
    estimator: str = "exact"

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def lr(self) -> float:
        return 0.4 if self.net == "conv4" else 0.01

    @property
    def model(self) -> Model:
        return conv4_omniglot(WAYS, filters=8) if self.net == "conv4" else mlp((40, 40, 1))


CASES = [
    *(Case(net, steps) for net in ("conv4", "mlp") for steps in (1, 2, 5)),
    *(Case("conv4", 2, name) for name in ("rematerialised", "mixed_mode", "first_order")),
]


def given(case: Case) -> tuple[Params, Episode]:
    """Weights and an episode of one case, in float64."""
    rng = np.random.default_rng(case.steps)
    if case.net == "conv4":
        # 28, 14, 7 and 4 pixels: even sides are padded on one side only, odd ones on both.
        x = rng.random((4 * WAYS, 28, 28, 1))
        y = np.tile(np.arange(WAYS, dtype=np.int32), 4)
        support, query = Batch(x[:WAYS], y[:WAYS]), Batch(x[WAYS:], y[WAYS:])
    else:
        x = rng.uniform(-5, 5, (20, 1))
        support, query = (Batch(part, 3 * np.sin(part - 1)) for part in (x[:10], x[10:]))
    params = case.model.init(jax.random.key(case.steps), jnp.asarray(support.x, jnp.float32))
    # Offsets start at zero, where a wrong sign would not show.
    moved = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) + 0.1 * rng.standard_normal(leaf.shape), params
    )
    return moved, Episode(support, query)


def named(tree: Any) -> dict[str, Any]:
    """Leaves by path, as "Conv_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def torch_python() -> Path | None:
    """This Python if it has PyTorch, or the one that `scripts/peers/install` makes."""
    if importlib.util.find_spec("torch"):
        return Path(sys.executable)
    made = ROOT / ".venv-peers" / "bin" / "python"
    return made if made.exists() else None


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, dict[str, Any]]:
    """PyTorch's loss and meta-gradient of all cases, from one start of PyTorch."""
    python = torch_python()
    if python is None:
        pytest.skip("PyTorch is not installed: scripts/test peers does that")
    folder = tmp_path_factory.mktemp("torch")
    files = {case: folder / f"{case}.npz" for case in CASES}
    for case, file in files.items():
        params, (support, query) = given(case)
        np.savez(
            file,
            steps=case.steps,
            lr=case.lr,
            first_order=case.estimator == "first_order",
            support_x=support.x,
            support_y=support.y,
            query_x=query.x,
            query_y=query.y,
            **{f"param:{name}": leaf for name, leaf in named(params).items()},
        )
    script = ROOT / "scripts" / "peers" / "oracle.py"
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, script, *files.values()], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return {case: dict(np.load(file.with_suffix(".out.npz"))) for case, file in files.items()}


def by_jaxdl(case: Case) -> tuple[Grads, float]:
    loss = cross_entropy if case.net == "conv4" else mean_squared_error
    learner = maml(
        case.model,
        loss,
        tx=optax.sgd(case.lr),
        steps=case.steps,
        estimator=ESTIMATORS[case.estimator],
    )
    with jax.enable_x64(True):
        params, episode = jax.tree.map(jnp.asarray, given(case))
        grads, metrics = jax.jit(learner.grad)(jax.random.key(0), jnp.int32(0), params, episode)
        return jax.tree.map(np.asarray, grads), float(metrics["loss"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_meta_gradient_is_that_of_pytorch(case: Case, by_torch: dict[Case, dict[str, Any]]) -> None:
    grads, loss = by_jaxdl(case)
    expected = by_torch[case]
    assert loss == pytest.approx(float(expected.pop("loss")), rel=1e-9)
    expected = {name.removeprefix("grad:"): value for name, value in expected.items()}
    assert named(grads).keys() == expected.keys()
    for name, value in named(grads).items():
        assert value.dtype == np.float64
        scale = np.abs(expected[name]).max()
        assert scale > 0, f"{name} has no gradient: nothing would be compared"
        error = np.abs(value - expected[name]).max() / scale
        assert error < 1e-9, f"{name}: relative error {error:.1e}"
