"""MetaOptNet's ridge form against scikit-learn, the paper's quadratic program, and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.metaoptnet import metaoptnet
from jaxdl.types import Batch, Episode, Model

LINEAR = Model(
    lambda key, x: jnp.eye(x.shape[1], 3),
    lambda params, x, *, key=None, weight=None: jnp.sin(x @ params),
)


def episode():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 6, 4)), rng.uniform(0.1, 3, size=6)
    labels = jnp.arange(6) % 3
    return Episode(
        Batch(jnp.asarray(x[0]), labels, jnp.asarray(weight)), Batch(jnp.asarray(x[1]), labels)
    )


def test_logits_are_scaled_scores_of_scikit_learns_ridge(key):
    with jax.enable_x64(True):
        support, query = episode()
        learner = metaoptnet(LINEAR, cross_entropy, ways=4, strength=5.0, scale=3.0)
        params = learner.init(key, support.x)
        found = learner.predict(learner.adapt(key, params, support), query.x)
        hidden, asked = (np.asarray(LINEAR.apply(params.features, x)) for x in (support.x, query.x))
    peer = Ridge(alpha=5.0, fit_intercept=False).fit(hidden, np.eye(3)[support.y], support.weight)
    np.testing.assert_allclose(found[:, :3], 3 * peer.predict(asked), rtol=1e-9)
    assert np.isneginf(found[:, 3]).all()


def test_the_quadratic_program_of_the_code_has_twice_the_scores(key):
    """Its dual variables minimise `z (K + strength) z / 2 - 2 y z`, for each class."""
    with jax.enable_x64(True):
        support, query = episode()
        learner = metaoptnet(LINEAR, cross_entropy, ways=3)
        params, support = learner.init(key, support.x), support._replace(weight=None)
        found = learner.predict(learner.adapt(key, params, support), query.x)
        hidden, asked = (np.asarray(LINEAR.apply(params.features, x)) for x in (support.x, query.x))
    quadratic, linear = hidden @ hidden.T + 50 * np.eye(6), -2 * np.eye(3)[support.y]
    z = np.linalg.solve(quadratic, -linear)
    np.testing.assert_allclose(2 * np.asarray(found), asked @ hidden.T @ z, rtol=1e-9)


@pytest.mark.parametrize("loss", [cross_entropy, mean_squared_error])
def test_the_meta_gradient_is_that_of_finite_differences(loss, key):
    with jax.enable_x64(True):
        task = episode()
        if loss is mean_squared_error:
            task = Episode(*(part._replace(y=jnp.cos(part.x[:, :2])) for part in task))
        learner = metaoptnet(LINEAR, loss, ways=3, strength=0.5)
        params = learner.init(key, task.support.x)
        grads, _ = jax.jit(learner.grad)(key, jnp.int32(0), params, task)
        direction = jax.tree.map(jnp.cos, params)

        @jax.jit
        def value(h):
            moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
            adapted = learner.adapt(key, moved, task.support)
            return loss(learner.predict(adapted, task.query.x), task.query.y)[0]

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
        assert abs(grads.scale) > 1e-4
    np.testing.assert_allclose(along, slope, rtol=1e-7)


def test_no_strength_is_refused():
    with pytest.raises(InputError, match=r"makes no ridge regression. Give a number above 0"):
        metaoptnet(LINEAR, cross_entropy, ways=2, strength=0)
