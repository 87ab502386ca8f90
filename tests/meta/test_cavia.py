"""CAVIA in closed form on a linear model, and what its context may and may not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.cavia import cavia
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model

LINEAR = Model(
    lambda key, x: jax.random.normal(key, (x.shape[1], 1), x.dtype),
    lambda w, x, *, key=None, weight=None: x @ w,
)
RATE, FEATURES, CONTEXTS = 0.3, 3, 2


def regression(seed=0):
    """Weights of the inputs, weights of the context, and an episode, in float64."""
    rng = np.random.default_rng(seed)
    parts = [Batch(rng.normal(size=(n, FEATURES)), rng.normal(size=(n, 1))) for n in (5, 4)]
    return rng.normal(size=(FEATURES, 1)), rng.normal(size=(CONTEXTS, 1)), Episode(*parts)


def learner(**options):
    return cavia(LINEAR, mean_squared_error, contexts=CONTEXTS, inner_lr=RATE, **options)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_context_is_the_closed_form(steps, key):
    """With residuals r of the support set, a step moves the context c by -2 RATE (r + c.v) v."""
    w, v, episode = regression()
    residual, context = np.mean(episode.support.x @ w - episode.support.y), np.zeros((CONTEXTS, 1))
    for _ in range(steps):
        context = context - 2 * RATE * (residual + np.sum(context * v)) * v
    with jax.enable_x64(True):
        params = jnp.concatenate([w, v])
        adapted = learner().adapt(key, params, jax.tree.map(jnp.asarray, episode.support), steps)
        found = learner().predict(adapted, jnp.asarray(episode.query.x))
        np.testing.assert_array_equal(adapted.params, params)
    np.testing.assert_allclose(adapted.context[:, None], context, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found, episode.query.x @ w + np.sum(context * v), rtol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [estimators.exact, estimators.mixed_mode, estimators.first_order],
    ids=lambda e: e.__name__,
)
def test_the_meta_gradient_is_the_closed_form(estimator, key):
    """After one step the prediction is x.w - 2 RATE r v.v, where r depends on w, too.

    For first order the context is a constant.
    """
    w, v, (support, query) = regression(1)
    residual = np.mean(support.x @ w - support.y)
    context = -2 * RATE * residual * v
    error = query.x @ w + np.sum(context * v) - query.y
    if estimator is estimators.first_order:
        by_w, by_v = query.x, np.broadcast_to(context.T, (len(error), CONTEXTS))
    else:
        by_w = query.x - 2 * RATE * np.sum(v * v) * support.x.mean(axis=0)
        by_v = np.broadcast_to(-4 * RATE * residual * v.T, (len(error), CONTEXTS))
    expected = 2 * np.mean(error * np.concatenate([by_w, by_v], axis=1), axis=0)
    with jax.enable_x64(True):
        episode = jax.tree.map(jnp.asarray, Episode(support, query))
        params = jnp.concatenate([w, v])
        grads, _ = jax.jit(learner(estimator=estimator).grad)(key, 0, params, episode)
    np.testing.assert_allclose(grads[:, 0], expected, rtol=1e-10)


def test_images_are_flattened_and_the_net_is_as_much_wider(key):
    x = jnp.ones((2, 4, 3, 1))
    assert learner().init(key, x).shape == (4 * 3 + CONTEXTS, 1)


def test_what_cannot_be_meant_is_refused(key):
    for options in ({"contexts": 0}, {"steps": -1}):
        with pytest.raises(InputError, match=r"contexts=0`: choose 1|steps=-1`: choose 0"):
            cavia(LINEAR, mean_squared_error, **options)
    with pytest.raises(InputError, match=r"several arrays. Concatenate"):
        learner().init(key, {"a": jnp.ones((2, 3))})
    with pytest.raises(InputError, match=r"floating-point inputs, not uint8"):
        cavia(mlp((1,)), mean_squared_error).init(key, jnp.ones((2, 3), jnp.uint8))
