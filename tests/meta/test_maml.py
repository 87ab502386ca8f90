"""MAML against algebra: on linear regression every inner step is an affine map."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.maml import fomaml, maml
from jaxdl.types import Batch, Episode, Model

LINEAR = Model(
    init=lambda key, x: jax.random.normal(key, (x.shape[1], 1), x.dtype),
    apply=lambda params, x, *, key=None, weight=None: x @ params,
)
RATE = 0.07


def regression(seed: int = 0, points: int = 6, features: int = 3) -> tuple[np.ndarray, Episode]:
    """Float64 parameters and an episode, made by NumPy."""
    rng = np.random.default_rng(seed)
    batches = [
        Batch(rng.normal(size=(points, features)), rng.normal(size=(points, 1))) for _ in range(2)
    ]
    return rng.normal(size=(features, 1)), Episode(*batches)


def gradient(w: np.ndarray, batch: Batch) -> np.ndarray:
    return 2 / len(batch.x) * batch.x.T @ (batch.x @ w - batch.y)


def closed_form(w: np.ndarray, episode: Episode, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The adapted parameters, and their derivative by the initial ones."""
    support = episode.support
    contraction = np.eye(len(w)) - RATE * 2 / len(support.x) * support.x.T @ support.x
    for _ in range(steps):
        w = w - RATE * gradient(w, support)
    return w, np.linalg.matrix_power(contraction, steps)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "estimator",
    [estimators.exact, estimators.rematerialised, estimators.mixed_mode],
    ids=lambda e: e.__name__,
)
def test_meta_gradient_is_the_closed_form(steps, estimator, key):
    with jax.enable_x64(True):
        w, episode = regression()
        learner = maml(
            LINEAR, mean_squared_error, tx=optax.sgd(RATE), steps=steps, estimator=estimator
        )
        grads, metrics = learner.grad(key, 0, jnp.asarray(w), jax.tree.map(jnp.asarray, episode))
    adapted, derivative = closed_form(w, episode, steps)
    np.testing.assert_allclose(grads, derivative.T @ gradient(adapted, episode.query), rtol=1e-10)
    error = np.mean((episode.query.x @ adapted - episode.query.y) ** 2)
    np.testing.assert_allclose(metrics["loss"], error, rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_first_order_gradient_is_that_at_the_adapted_parameters(steps, key):
    with jax.enable_x64(True):
        w, episode = regression(1)
        learner = fomaml(LINEAR, mean_squared_error, tx=optax.sgd(RATE), steps=steps)
        grads, _ = learner.grad(key, 0, jnp.asarray(w), jax.tree.map(jnp.asarray, episode))
    adapted, derivative = closed_form(w, episode, steps)
    first_order = gradient(adapted, episode.query)
    np.testing.assert_allclose(grads, first_order, rtol=1e-10)
    # On this task the Hessian matters, so the test above cannot pass by the exact gradient.
    assert not np.allclose(first_order, derivative.T @ first_order, rtol=1e-2)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_adapt_takes_the_depth_that_it_is_asked_for(steps, key):
    with jax.enable_x64(True):
        w, episode = regression(2)
        learner = maml(LINEAR, mean_squared_error, tx=optax.sgd(RATE), steps=2)
        found = learner.adapt(key, jnp.asarray(w), episode.support, steps)
        trained = learner.adapt(key, jnp.asarray(w), episode.support)
    np.testing.assert_allclose(found, closed_form(w, episode, steps)[0], rtol=1e-12)
    np.testing.assert_allclose(trained, closed_form(w, episode, 2)[0], rtol=1e-12)


def test_finite_differences_of_the_query_loss_agree(key):
    """On a net with curvature everywhere, adapted by momentum: no closed form, but a slope."""
    with jax.enable_x64(True):
        _, episode = regression(3)
        episode = jax.tree.map(jnp.asarray, episode)
        net = Model(
            init=lambda key, x: {
                "w": jax.random.normal(key, (3, 4)),
                "v": jax.random.normal(key, (4, 1)),
            },
            apply=lambda params, x, *, key=None, weight=None: (
                jnp.tanh(x @ params["w"]) @ params["v"]
            ),
        )
        tx = optax.sgd(0.1, momentum=0.9)
        learner = maml(net, mean_squared_error, tx=tx, steps=3)
        params = learner.init(key, episode.support.x)
        grads, _ = learner.grad(key, 0, params, episode)

        def loss(params):
            adapted = learner.adapt(key, params, episode.support)
            return jnp.mean((learner.predict(adapted, episode.query.x) - episode.query.y) ** 2)

        direction = jax.tree.map(jnp.cos, params)
        shift = lambda h: jax.tree.map(lambda p, d: p + h * d, params, direction)  # noqa: E731
        slope = (loss(shift(1e-5)) - loss(shift(-1e-5))) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
    np.testing.assert_allclose(along, slope, rtol=1e-7)


def test_padding_of_the_support_set_changes_nothing(key):
    with jax.enable_x64(True):
        w, episode = regression(4)
        support = episode.support
        padded = Batch(
            jnp.concatenate([support.x, 100 * jnp.ones((2, 3))]),
            jnp.concatenate([support.y, jnp.ones((2, 1))]),
            weight=jnp.asarray([1.0] * 6 + [0.0] * 2),
        )
        learner = maml(LINEAR, mean_squared_error, tx=optax.sgd(RATE), steps=2)
        grads = [
            learner.grad(key, 0, jnp.asarray(w), Episode(each, episode.query))[0]
            for each in (support, padded)
        ]
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-12)
