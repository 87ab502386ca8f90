"""Meta-SGD against MAML, finite differences, and a step by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.maml import maml
from jaxdl.meta.meta_sgd import WithRates, meta_sgd
from jaxdl.types import Batch, Episode, Model

RATE = 0.1
CURVED = Model(
    lambda key, x: {"w": jax.random.normal(key, (3, 4)), "v": jax.random.normal(key, (4, 1))},
    lambda params, x, *, key=None, weight=None: jnp.tanh(x @ params["w"]) @ params["v"],
)


def numbers(tree):
    return jax.tree.map(np.asarray, tree)


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected
    )


@pytest.fixture
def double():
    """An episode and parameters in float64, inside whose context a test runs."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        parts = [Batch(rng.normal(size=(5, 3)), rng.normal(size=(5, 1))) for _ in range(2)]
        start = CURVED.init(jax.random.key(0), None)
        yield jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (Episode(*parts), start))


@pytest.mark.parametrize(
    "estimator",
    [estimators.exact, estimators.first_order, estimators.mixed_mode],
    ids=lambda e: e.__name__,
)
def test_with_one_rate_for_all_it_is_maml(estimator, double, key):
    episode, start = double
    options = {"steps": 2, "estimator": estimator}
    ours = meta_sgd(CURVED, mean_squared_error, **options)
    peer = maml(CURVED, mean_squared_error, tx=optax.sgd(RATE), **options)
    params = WithRates(start, jax.tree.map(lambda leaf: jnp.full_like(leaf, RATE), start))
    found, expected = (
        numbers(jax.jit(each.grad)(key, 0, given, episode)[0])
        for each, given in ((ours, params), (peer, start))
    )
    close(found.start, expected)
    adapted = [
        numbers(jax.jit(each.adapt, static_argnums=3)(key, given, episode.support, 3))
        for each, given in ((ours, params), (peer, start))
    ]
    close(*adapted)


def test_finite_differences_of_the_rates_agree(double, key):
    episode, start = double
    learner = meta_sgd(CURVED, mean_squared_error, steps=2)
    params = WithRates(start, jax.tree.map(lambda leaf: 0.1 + 0.05 * jnp.sin(leaf), start))

    @jax.jit
    def loss(params):
        adapted = learner.adapt(key, params, episode.support)
        return jnp.mean((learner.predict(adapted, episode.query.x) - episode.query.y) ** 2)

    grads, _ = jax.jit(learner.grad)(key, 0, params, episode)
    for name, leaf in params.rates.items():
        for place in np.ndindex(leaf.shape):

            def moved(by, name=name, place=place):
                at = params.rates[name].at[place].add(by)
                return loss(params._replace(rates={**params.rates, name: at}))

            slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
            np.testing.assert_allclose(grads.rates[name][place], slope, rtol=1e-6, atol=1e-10)


def test_each_number_has_its_rate(key):
    """On (w . x - 1)^2 at w = 0: the gradient is -2 x, and the step is 2 x times the rate."""
    linear = Model(lambda key, x: jnp.zeros((3, 1)), lambda w, x, *, key=None, weight=None: x @ w)
    learner = meta_sgd(linear, mean_squared_error)
    rates = jnp.asarray([[0.5], [0.0], [-0.25]])
    support = Batch(jnp.asarray([[1.0, 2.0, 4.0]]), jnp.ones((1, 1)))
    adapted = learner.adapt(key, WithRates(jnp.zeros((3, 1)), rates), support)
    np.testing.assert_allclose(adapted, [[1.0], [0.0], [-2.0]], rtol=1e-6)


def test_rates_start_as_one_number_of_the_range():
    learner = meta_sgd(CURVED, mean_squared_error)
    drawn = []
    for seed in range(20):
        params = learner.init(jax.random.key(seed), None)
        (rate,) = set(np.concatenate([leaf.ravel() for leaf in params.rates.values()]).tolist())
        drawn.append(rate)
    assert 0.005 <= min(drawn) < 0.03 < 0.07 < max(drawn) <= 0.1
    fixed = meta_sgd(CURVED, mean_squared_error, initial_lr=(0.25, 0.25))
    assert set(fixed.init(jax.random.key(0), None).rates["v"].ravel().tolist()) == {0.25}


@pytest.mark.parametrize("options", [{"steps": -1}, {"initial_lr": (0.2, 0.1)}])
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(InputError, match=r"steps=-1`: choose|initial_lr=.*Swap"):
        meta_sgd(CURVED, mean_squared_error, **options)
