"""R2-D2 by NumPy, and its meta-gradient by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.r2d2 import r2d2
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model

IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)


def episode(rows=6, ways=3):
    rng = np.random.default_rng(0)
    support, query = (
        Batch(jnp.asarray(rng.normal(size=(rows, 4))), jnp.arange(rows) % ways) for _ in range(2)
    )
    return Episode(support, query)


def test_logits_are_scaled_scores_of_a_ridge_regression_with_a_penalised_bias(key):
    with jax.enable_x64(True):
        support, query = episode()
        learner = r2d2(IDENTITY, cross_entropy, ways=4, strength=0.3, scale=2.0)
        params = learner.init(key, support.x)._replace(offset=jnp.asarray(0.5))
        found = learner.predict(learner.adapt(key, params, support), query.x)
    x, asked = (np.column_stack([part.x, np.ones(6)]) for part in (support, query))
    y = np.eye(3)[support.y]
    kernel = np.linalg.solve(x.T @ x + 0.3 * np.eye(5), x.T @ y)
    np.testing.assert_allclose(found[:, :3], 2 * asked @ kernel + 0.5, rtol=1e-9)
    assert np.isneginf(found[:, 3]).all()


def test_the_meta_gradient_is_that_of_finite_differences_for_each_parameter(key):
    """With respect to the embedding, and each of the three numbers."""
    with jax.enable_x64(True):
        given, net = episode(), mlp((3,), activation=jnp.tanh)
        to_float64 = lambda tree: jax.tree.map(lambda leaf: leaf.astype(float), tree)  # noqa: E731
        for loss, targets in ((cross_entropy, lambda y: y), (mean_squared_error, jnp.cos)):
            parts = (part._replace(y=targets(part.y)) for part in given)
            task = Episode(*parts)
            learner = r2d2(net, loss, ways=3, scale=1.5)
            params = to_float64(learner.init(key, task.support.x))

            @jax.jit
            def value(params, learner=learner, task=task, loss=loss):
                adapted = learner.adapt(key, params, task.support)
                return loss(learner.predict(adapted, task.query.x), task.query.y)[0]

            grads, _ = jax.jit(learner.grad)(key, jnp.int32(0), params, task)
            for place, (path, grad) in enumerate(jax.tree_util.tree_leaves_with_path(grads)):
                leaves, structure = jax.tree.flatten(params)
                ends = []
                for h in (1e-5, -1e-5):
                    moved = [leaf + h * (place == i) for i, leaf in enumerate(leaves)]
                    ends.append(value(jax.tree.unflatten(structure, moved)))
                slope = (ends[0] - ends[1]) / 2e-5
                name = jax.tree_util.keystr(path)
                np.testing.assert_allclose(grad.sum(), slope, rtol=1e-6, atol=1e-9, err_msg=name)
            without_effect = loss is cross_entropy
            assert np.allclose(grads.offset, 0, atol=1e-12) == without_effect
            assert abs(grads.log_strength) > 1e-4


def test_absent_classes_change_neither_the_loss_nor_the_gradient(key):
    given, net = episode(ways=2), mlp((3,))
    params = r2d2(net, cross_entropy, ways=2).init(key, given.support.x)
    two, five = (
        jax.jit(r2d2(net, cross_entropy, ways=ways).grad)(key, jnp.int32(0), params, given)
        for ways in (2, 5)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), five, two)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("axes", [(), (1,), (2, 2)])
def test_numbers_are_regressed(axes, scale, key):
    """A line with an intercept, which an almost free ridge finds."""
    slope = jnp.arange(1.0, 1 + 4 * np.prod(axes, dtype=int)).reshape(4, *axes)
    given, _ = episode(rows=9)
    support = Batch(given.x, jnp.tensordot(given.x, slope, axes=1) + 7)
    learner = r2d2(IDENTITY, mean_squared_error, ways=1, strength=1e-4, scale=scale)
    params = learner.init(key, support.x)
    found = learner.predict(learner.adapt(key, params, support), support.x[:5])
    np.testing.assert_allclose(found, support.y[:5], atol=0.02)


@pytest.mark.parametrize("strength", [0, -1.0, float("nan")])
def test_no_strength_is_refused(strength):
    with pytest.raises(InputError, match=r"makes no ridge regression. Give a number above 0"):
        r2d2(IDENTITY, cross_entropy, ways=2, strength=strength)
