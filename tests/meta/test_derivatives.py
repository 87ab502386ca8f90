"""The derivatives of every learner's `grad`, by three ways that must agree.

A backward rule that is not the true one shows in one of them. Finite differences of the loss are
the gradient. The derivative of a gradient is symmetric, so forward mode and reverse mode through it
agree. Finite differences of the gradient are that derivative, too.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.meta.base import QueryGrad
from jaxdl.types import MetaLearner
from tests.meta.contract import CLASSIFICATION
from tests.meta.test_contract import META, TRANSFER, each

H = 1e-5
"""The step of finite differences, in float64."""

TRAINED = [row for row in META + TRANSFER if row.trains]
KEY, STEP = jax.random.key(0), 10_000
"""Late in training: the early gradients of MAML++ are of losses after all inner steps."""


def double(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree
    )


def given(row):
    """A learner, its parameters, what its `grad` takes, and a direction of the parameters.

    No parameter is 0, as offsets are at the start: a relu of exactly 0 has no derivative.
    """
    model, loss, sample = CLASSIFICATION
    learner = row.make(model, loss)
    episode = double(jax.jit(sample)(jax.random.key(1)))
    params = double(jax.jit(learner.init)(jax.random.key(2), episode.support.x))
    batch = episode if isinstance(learner, MetaLearner) else episode.query
    leaves, structure = jax.tree.flatten(params)
    draw = np.random.default_rng(0).normal
    v = jax.tree.unflatten(structure, [jnp.asarray(draw(size=leaf.shape)) for leaf in leaves])
    return learner, jax.tree.map(lambda p: p + 0.1 * draw(size=p.shape), params), batch, v


def slope_of_loss(grad, params, v):
    """Along v, by finite differences, and as the gradients have it. Those at both ends, too."""

    def moved(by):
        return grad(jax.tree.map(lambda p, d: p + by * d, params, v))

    ends, metrics = lax.map(moved, jnp.asarray([H, -H]))
    slope = (metrics["loss"][0] - metrics["loss"][1]) / (2 * H)
    along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grad(params)[0], v)))
    return slope, along, ends


@each([row for row in TRAINED if not row.instead], core=True)
def test_gradients_are_those_of_the_loss_and_so_are_their_derivatives(row):
    with jax.enable_x64(True):
        learner, params, batch, v = given(row)
        if isinstance(learner, MetaLearner):
            assert isinstance(learner.grad, QueryGrad), "say in the row what `grad` is `instead`"
        grad = partial(learner.grad, KEY, STEP)

        def forward(params):
            return jax.jvp(lambda at: grad(at, batch)[0], (params,), (v,))[1]

        if row.reverse_only:
            with pytest.raises(TypeError, match="custom_vjp"):
                jax.eval_shape(forward, params)

        @jax.jit
        def measure(params):
            slope, along, ends = slope_of_loss(lambda at: grad(at, batch), params, v)
            differences = jax.tree.map(lambda leaf: (leaf[0] - leaf[1]) / (2 * H), ends)
            (by_reverse,) = jax.vjp(lambda at: grad(at, batch)[0], params)[1](v)
            by_forward = by_reverse if row.reverse_only else forward(params)
            return slope, along, by_reverse, by_forward, differences

        found = measure(params)
        slope, along, by_reverse, by_forward, differences = jax.tree.map(np.asarray, found)
    np.testing.assert_allclose(along, slope, rtol=1e-6)
    close(by_reverse, by_forward, rtol=1e-9)
    close(by_reverse, differences, rtol=1e-5)


@each([row for row in TRAINED if row.instead], core=True)
def test_gradients_that_are_not_those_of_the_loss_are_what_the_row_says(row):
    with jax.enable_x64(True):
        learner, params, batch, v = given(row)
        grad = partial(learner.grad, KEY, STEP)

        @jax.jit
        def measure(params):
            slope, along, _ = slope_of_loss(lambda at: grad(at, batch), params, v)
            claim = row.instead(learner, CLASSIFICATION[1], KEY, params, batch)
            return slope, along, grad(params, batch)[0], claim

        slope, along, grads, claim = jax.tree.map(np.asarray, measure(params))
    assert not np.isclose(along, slope, rtol=1e-3), "it is the gradient of the loss after all"
    close(grads, claim, rtol=1e-9)


def close(found, expected, *, rtol):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert largest > 0
    check = partial(np.testing.assert_allclose, rtol=rtol, atol=rtol * largest / 10)
    jax.tree.map(check, found, expected)
