"""MAML, ANIL and Meta-SGD as learn2learn has them: the same predictions and meta-gradients.

Its release is no package for current Pythons, because parts of it are C code for older ones.
`scripts/test peers` unpacks it, and what is compared here is pure Python.
"""

import importlib
import itertools
import sys
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta.anil import anil
from jaxdl.meta.head import Headed
from jaxdl.meta.maml import fomaml, maml
from jaxdl.meta.meta_sgd import WithRates, meta_sgd
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode

torch = pytest.importorskip("torch")
SOURCE = Path(sys.prefix) / "learn2learn-0.2.0"
if not SOURCE.is_dir():
    pytest.skip("learn2learn is not there: scripts/test peers does that", allow_module_level=True)
pytestmark = [
    # Meta-SGD of learn2learn reads `grad` of the weights of its clone.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]

# The packages themselves import the C code.
for package in ("learn2learn", "learn2learn.algorithms"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(SOURCE / package.replace(".", "/"))]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    MAML = importlib.import_module("learn2learn.algorithms.maml").MAML
    MetaSGD = importlib.import_module("learn2learn.algorithms.meta_sgd").MetaSGD

INPUTS, HIDDEN, FEATURES, WAYS, LR = 8, 6, 5, 3, 0.2
STEPS = [1, 3]


def episode():
    rng = np.random.default_rng(0)
    support, query = (
        Batch(rng.normal(size=(n, INPUTS)), np.arange(n) % WAYS) for n in (2 * WAYS, 4 * WAYS)
    )
    return Episode(support, query)


def dense(inputs, outputs):
    return torch.nn.Linear(inputs, outputs, dtype=torch.float64)


def net(*widths):
    """Dense layers with relu between them, as `mlp`."""
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [dense(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def as_params(tensors):
    """What `mlp` calls parameters, of the weights and biases of dense layers in their order."""
    arrays = [tensor.detach().numpy() for tensor in tensors]
    return {
        f"Dense_{i}": {"kernel": kernel.T, "bias": bias}
        for i, (kernel, bias) in enumerate(zip(arrays[::2], arrays[1::2], strict=True))
    }


def grads_of(tensors):
    return [tensor.grad for tensor in tensors]


def adapted(learner, steps, support_x):
    """A clone after some steps on the support set, whose inputs may be features."""
    clone, y = learner.clone(), torch.tensor(episode().support.y)
    for _ in range(steps):
        clone.adapt(torch.nn.functional.cross_entropy(clone(support_x), y))
    return clone


def backward(logits):
    torch.nn.functional.cross_entropy(logits, torch.tensor(episode().query.y)).backward()
    return logits.detach().numpy()


def by_jaxdl(learner, params):
    with jax.enable_x64(True):
        params, task = jax.tree.map(jnp.asarray, (params, episode()))

        @jax.jit
        def both(params):
            found = learner.adapt(jax.random.key(0), params, task.support)
            grads, _ = learner.grad(jax.random.key(0), jnp.int32(0), params, task)
            return learner.predict(found, task.query.x), grads

        return jax.tree.map(np.asarray, both(params))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(other).max() > 1e-4, "nothing would be compared"
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("first_order", [False, True])
def test_maml(steps, first_order):
    x, query_x = (torch.tensor(part.x) for part in episode())
    learner = MAML(net(INPUTS, HIDDEN, WAYS), lr=LR, first_order=first_order)
    logits = backward(adapted(learner, steps, x)(query_x))
    tensors = list(learner.parameters())
    make = fomaml if first_order else maml
    ours = make(mlp((HIDDEN, WAYS)), cross_entropy, tx=optax.sgd(LR), steps=steps)
    found = by_jaxdl(ours, as_params(tensors))
    assert_same(found, (logits, as_params(grads_of(tensors))))


@pytest.mark.parametrize("steps", STEPS)
def test_anil(steps):
    """As its example has it: MAML on the head, and features that the outer loss alone trains."""
    x, query_x = (torch.tensor(part.x) for part in episode())
    features = net(INPUTS, HIDDEN, FEATURES)
    head = MAML(dense(FEATURES, WAYS), lr=LR)
    logits = backward(adapted(head, steps, features(x))(features(query_x)))
    inside, (kernel, bias) = list(features.parameters()), list(head.parameters())

    def headed(inside, kernel, bias):
        return Headed(as_params(inside), kernel.detach().numpy().T, bias.detach().numpy())

    options = {"ways": WAYS, "tx": optax.sgd(LR), "steps": steps}
    ours = anil(mlp((HIDDEN, FEATURES)), cross_entropy, **options)
    found = by_jaxdl(ours, headed(inside, kernel, bias))
    assert_same(found, (logits, headed(grads_of(inside), kernel.grad, bias.grad)))


@pytest.mark.parametrize("steps", STEPS)
def test_meta_sgd(steps):
    """By the learning rates, too, of which each number has its own, some below 0."""
    x, query_x = (torch.tensor(part.x) for part in episode())
    learner = MetaSGD(net(INPUTS, HIDDEN, WAYS), lr=LR)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for rates in learner.lrs:
            rates.add_(torch.tensor(0.2 * rng.normal(size=tuple(rates.shape))))
    logits = backward(adapted(learner, steps, x)(query_x))
    tensors, rates = list(learner.module.parameters()), list(learner.lrs)
    ours = meta_sgd(mlp((HIDDEN, WAYS)), cross_entropy, steps=steps)
    found = by_jaxdl(ours, WithRates(as_params(tensors), as_params(rates)))
    expected = WithRates(as_params(grads_of(tensors)), as_params(grads_of(rates)))
    assert_same(found, (logits, expected))
