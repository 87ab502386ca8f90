"""Implicit gradients as TorchOpt has them: those of implicit MAML (Rajeswaran et al. 2019).

In a task, weights are pulled back to the initialisation and minimise the loss of the support set.
Both libraries descend to that minimum, and both solve a linear system there by conjugate gradients.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta.hypergradient import hypergradient
from jaxdl.meta.solvers import conjugate_gradients
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torchopt = pytest.importorskip("torchopt")
pytestmark = [
    pytest.mark.filterwarnings("ignore:We've integrated functorch:FutureWarning"),
]

INPUTS, HIDDEN, WAYS = 4, 5, 3
STRENGTH, LR = 2.0, 0.2
NET = mlp((HIDDEN, WAYS), activation=jnp.tanh)


def task():
    rng = np.random.default_rng(0)
    parts = (Batch(rng.normal(size=(n, INPUTS)), np.arange(n) % WAYS) for n in (9, 12))
    return Episode(*parts)


def start():
    """The initialisation: kernels and biases in turn, as `mlp` has them."""
    rng = np.random.default_rng(1)
    shapes = (INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, WAYS), (WAYS,)
    return [0.7 * rng.normal(size=shape) for shape in shapes]


def named(arrays):
    k0, b0, k1, b1 = arrays
    return {"Dense_0": {"kernel": k0, "bias": b0}, "Dense_1": {"kernel": k1, "bias": b1}}


def by_torchopt(descents, products):
    """The loss of the queries, and its gradient by the initialisation."""

    def loss(params, part):
        k0, b0, k1, b1 = params
        logits = torch.tanh(torch.tensor(part.x) @ k0 + b0) @ k1 + b1
        return torch.nn.functional.cross_entropy(logits, torch.tensor(part.y))

    def pulled(params, meta):
        distance = sum(((p - m) ** 2).sum() for p, m in zip(params, meta, strict=True))
        return loss(params, task().support) + STRENGTH / 2 * distance

    def optimality(params, meta):
        return torch.func.grad(pulled)(params, meta)

    solve = torchopt.linear_solve.solve_cg(maxiter=products, rtol=0.0)

    @torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=solve)
    def descend(params, meta):
        for _ in range(descents):
            with torch.enable_grad():
                slope = torch.func.grad(pulled)(params, meta)
            params = tuple(p - LR * g for p, g in zip(params, slope, strict=True))
        return params

    meta = tuple(torch.tensor(leaf, requires_grad=True) for leaf in start())
    found = descend(tuple(leaf.detach().clone() for leaf in meta), meta)
    value = loss(found, task().query)
    grads = torch.autograd.grad(value, meta)
    return value.item(), named([leaf.numpy() for leaf in grads])


def by_jaxdl(descents, solver):
    def inner(params, key, meta, batch):
        value = cross_entropy(NET.apply(params, batch.x), batch.y)[0]
        away = jax.tree.map(lambda p, m: jnp.sum((p - m) ** 2), params, meta)
        return value + STRENGTH / 2 * sum(jax.tree.leaves(away)), {}

    def outer(params, key, meta, batch):
        return cross_entropy(NET.apply(params, batch.x), batch.y)

    options = {"tx": optax.sgd(LR), "steps": descents, "solver": solver}
    grad = hypergradient(inner, outer, start=lambda key, meta, batch: meta, **options)
    with jax.enable_x64(True):
        meta, episode = jax.tree.map(jnp.asarray, (named(start()), task()))
        grads, metrics = jax.jit(grad)(jax.random.key(0), jnp.int32(0), meta, episode)
        return float(metrics["loss"]), jax.tree.map(np.asarray, grads)


@pytest.mark.parametrize(("descents", "products"), [(3, 2), (3, 30), (100, 5)])
def test_the_implicit_meta_gradient(descents, products):
    """Before the descent and the solver have converged, too: both truncate in the same way."""
    value, expected = by_torchopt(descents, products)
    solver = functools.partial(conjugate_gradients, steps=products)
    found_value, found = by_jaxdl(descents, solver)
    np.testing.assert_allclose(found_value, value, rtol=1e-9)
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert size > 1e-2
    check = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7 * size)
    jax.tree.map(check, found, expected)
