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
KEY = jax.random.key(0)
STEP = 1_000_000
"""Late in training, when the loss of MAML++ no longer changes with the step."""


def double(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree
    )


def given(row):
    """A learner, its `grad` by parameters alone, these, a batch, and a direction of parameters.

    No parameter is 0, as offsets are at the start: a relu of exactly 0 has no derivative.
    """
    model, loss, sample = next(iter(row.problems.values()))
    learner = row.make(model, loss)
    episode = double(jax.jit(sample)(jax.random.key(1)))
    params = double(jax.jit(learner.init)(jax.random.key(2), episode.support.x))
    batch = episode if isinstance(learner, MetaLearner) else episode.query
    leaves, structure = jax.tree.flatten(params)
    draw = np.random.default_rng(0).normal
    v = jax.tree.unflatten(structure, [jnp.asarray(draw(size=leaf.shape)) for leaf in leaves])
    params = jax.tree.map(lambda p: p + 0.1 * draw(size=p.shape), params)
    return learner, lambda params: learner.grad(KEY, STEP, params, batch), params, batch, v


def differences(grad, params, v):
    """Of the loss and of the gradients along v, by their values at both sides."""

    def moved(by):
        return grad(jax.tree.map(lambda p, d: p + by * d, params, v))

    ends, metrics = lax.map(moved, jnp.asarray([H, -H]))
    slope = lambda leaf: (leaf[0] - leaf[1]) / (2 * H)  # noqa: E731
    return slope(metrics["loss"]), jax.tree.map(slope, ends)


def dot(one, other):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, one, other)))


@each([row for row in TRAINED if not row.instead], core=True)
def test_gradients_are_those_of_the_loss_and_so_are_their_derivatives(row):
    with jax.enable_x64(True):
        learner, grad, params, _, v = given(row)
        if isinstance(learner, MetaLearner):
            assert isinstance(learner.grad, QueryGrad), "say in the row what `grad` is `instead`"

        def grads_of(params):
            return grad(params)[0]

        def forward(params):
            return jax.jvp(grads_of, (params,), (v,))[1]

        if row.reverse_only:
            with pytest.raises(TypeError, match="custom_vjp"):
                jax.jit(forward).lower(params)

        @jax.jit
        def measure(params):
            grads, back = jax.vjp(grads_of, params)
            (by_reverse,) = back(v)
            by_forward = by_reverse if row.reverse_only else forward(params)
            return dot(grads, v), by_reverse, by_forward, differences(grad, params, v)

        along, by_reverse, by_forward, by_differences = jax.tree.map(np.asarray, measure(params))
    told = "not the gradient of its loss: say in the row what it is `instead`"
    np.testing.assert_allclose(along, by_differences[0], rtol=1e-6, err_msg=told)
    close(by_reverse, by_forward, rtol=1e-9)
    close(by_reverse, by_differences[1], rtol=1e-5)


@each([row for row in TRAINED if row.instead], core=True)
def test_gradients_that_are_not_those_of_the_loss_are_what_the_row_says(row):
    with jax.enable_x64(True):
        learner, grad, params, batch, v = given(row)

        @jax.jit
        def measure(params):
            grads, claim = (
                grad(params)[0],
                row.instead(learner, CLASSIFICATION[1], KEY, params, batch),
            )
            return dot(grads, v), differences(grad, params, v)[0], grads, claim

        along, slope, grads, claim = jax.tree.map(np.asarray, measure(params))
    assert not np.isclose(along, slope, rtol=1e-3), "it is the gradient of the loss after all"
    close(grads, claim, rtol=1e-9)


def close(found, expected, *, rtol):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert largest > 0
    check = partial(np.testing.assert_allclose, rtol=rtol, atol=rtol * largest / 10)
    jax.tree.map(check, found, expected)
