"""Nets of other libraries, by the very lines that the docstring of `jaxdl.models` gives."""

import re
import textwrap

import jax
import numpy as np
import optax
import pytest

import jaxdl.models
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.grads import over_tasks
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)


@pytest.fixture(params=["equinox", "haiku"])
def model(request):
    """The `Model` that the lines which import this library make."""
    pytest.importorskip(request.param)
    paragraphs = re.split(r"\n(?=\S)", jaxdl.models.__doc__)  # each with what is indented below it
    (lines,) = [part for part in paragraphs if f"import {request.param} as" in part]
    made = {}
    exec(textwrap.dedent(lines.partition("\n")[2]), made)
    return made["model"]


def test_a_key_drops_out_one_unit_of_ten(model):
    params = model.init(KEY, X)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    k1, k2 = (leaf.ravel() for leaf in leaves if leaf.ndim == 2)  # [1, 40] or [40, 1]
    b1, b2 = (leaf for leaf in leaves if leaf.ndim == 1)
    parts = np.maximum(X * k1 + b1, 0) * k2
    y = parts.sum(1) + b2
    np.testing.assert_allclose(model.apply(params, X)[:, 0], y, rtol=1e-4, atol=1e-5)

    keys = jax.random.split(KEY)
    one, two = (model.apply(params, X, key=key)[:, 0] for key in keys)
    np.testing.assert_array_equal(model.apply(params, X, key=keys[0])[:, 0], one)
    # Of a sum of units that are dropped at rate r, the variance is r / (1 - r) times their squares.
    expected = np.mean(np.sum(parts**2, axis=1)) / 9
    np.testing.assert_allclose([np.var(one - y), np.var(two - y)], expected, rtol=0.15)
    assert abs(np.corrcoef(one - y, two - y)[0, 1]) < 0.1


def test_maml_takes_a_step_with_it(model):
    """The meta-gradient is that of finite differences, and a step along it helps these tasks."""
    sample = sinusoid(shots=10, queries=10)
    tasks = jax.vmap(sample)(jax.random.split(KEY, 4))
    learner = maml(model, mean_squared_error, tx=optax.sgd(0.001), steps=2)
    params = learner.init(KEY, tasks.support.x[0])
    grad = jax.jit(over_tasks(learner.grad))

    def loss(params):
        return grad(KEY, 0, params, tasks)[1]["loss"]

    slope, _ = grad(KEY, 0, params, tasks)
    size = optax.tree.norm(slope)

    def moved(by):
        return jax.tree.map(lambda p, g: p + by * g / size, params, slope)

    np.testing.assert_allclose((loss(moved(1e-2)) - loss(moved(-1e-2))) / 2e-2, size, rtol=2e-2)
    tx = optax.adam(1e-3)
    updates, _ = tx.update(slope, tx.init(params), params)
    assert loss(optax.apply_updates(params, updates)) < loss(params)
