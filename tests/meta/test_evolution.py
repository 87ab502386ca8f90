"""Evolution strategies by hand, and their mean against derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.meta.evolution import es_estimator, es_grad, es_query_grad
from jaxdl.meta.inner import descend

MANY = 20_000
START = {"a": jnp.array([0.5, -1.0]), "b": jnp.array([[2.0]])}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("chunk", [None, 2])
def test_by_hand_at_the_points_that_it_asks_for(chunk, key):
    """The mean of value times distance from the centre, over the variance of the noise."""
    asked = []

    def value(params, key):
        found = 3 * params["a"][0] - params["a"][1] + 7 * params["b"][0, 0]
        jax.debug.callback(lambda *seen: asked.append(seen), params, found)
        return found, {"loss": found}

    with jax.enable_x64(True):
        start = jax.tree.map(lambda leaf: leaf.astype(float), START)
        grad = jax.jit(lambda p: es_grad(value, p, key, population=4, sigma=0.3, chunk=chunk))
        found, metrics = grad(start)
        jax.effects_barrier()
    away = np.stack([flat(at) - flat(start) for at, _ in asked])
    values = np.stack([each for _, each in asked])
    assert away.shape == (8, 3)
    assert np.unique(np.abs(away).round(9)).size == 4 * 3
    for there in away:  # each has its opposite
        assert np.isclose(away, -there).all(axis=1).sum() == 1
    np.testing.assert_allclose(flat(found), values @ away / (8 * 0.3**2), rtol=1e-9)
    np.testing.assert_allclose(metrics["loss"], values.mean(), rtol=1e-9)
    # For a linear objective it is the mean of (slope . noise) noise, whatever the centre's value.
    noise = away / 0.3
    np.testing.assert_allclose(flat(found), noise.T @ (noise @ [3, -1, 7]) / 8, rtol=1e-9)


def assert_mean(estimates, expected):
    """The mean of estimates `[keys, ...]` is within four standard errors of the expected one."""
    values = np.asarray(estimates, float)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.all(error < 0.05 * (1 + np.abs(expected)))
    assert np.all(np.abs(values.mean(axis=0) - expected) < 4 * error)


def test_its_mean_is_the_gradient_of_the_smoothed_objective():
    """Of w^3 that is 3 w^2 + 3 sigma^2. For a quadratic objective it is the plain gradient."""
    matrix, centre = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([0.5, -1.0])

    def quadratic(w, key):
        return w @ matrix @ w / 2 + 4 * w[0], {}

    def cubic(w, key):
        return jnp.sum(w**3), {}

    def estimates(value):
        keys = jax.random.split(jax.random.key(0), MANY)
        return jax.vmap(lambda key: es_grad(value, centre, key, population=1, sigma=0.5)[0])(keys)

    first, second = jax.jit(lambda: (estimates(quadratic), estimates(cubic)))()
    assert_mean(first, jax.grad(lambda w: quadratic(w, None)[0])(centre))
    assert_mean(second, 3 * centre**2 + 3 * 0.5**2)


def test_the_two_of_a_pair_draw_the_same_numbers_and_pairs_do_not(key):
    def value(params, key):
        noise = jax.random.normal(key)
        return 1e3 * noise, {"loss": noise**2}

    found, metrics = jax.jit(lambda: es_grad(value, START, key, population=2, sigma=0.1))()
    assert not flat(found).any()
    squares = [
        jax.jit(lambda k: es_grad(value, START, k, population=1, sigma=0.1)[1]["loss"])(k)
        for k in jax.random.split(key, 3)
    ]
    assert len({float(each) for each in (*squares, metrics["loss"])}) == 4


def test_it_has_the_dtypes_of_the_parameters(key):
    def value(w, key):
        return jnp.sum(w["a"]) + jnp.sum(w["b"]), {}

    start = {"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.ones(1)}
    found = jax.jit(lambda: es_grad(value, start, key, population=2, sigma=0.1)[0])()
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"population": 0}, "population=0`: choose 1 or more"),
        ({"population": 2.5}, "population=2.5`: .* a whole number"),
        ({"sigma": 0.0}, "sigma=0.0`: choose a standard deviation above 0"),
        ({"chunk": 3}, "chunk=3` does not divide 4 pairs"),
        ({"chunk": 0}, "chunk=0` does not divide"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, words, key):
    options = {"population": 4, "sigma": 0.1, **options}
    for refuse in (
        lambda: es_grad(lambda w, key: (w, {}), jnp.float32(1), key, **options),
        lambda: es_query_grad(None, None, None, **options),
        lambda: es_estimator(**options),
    ):
        with pytest.raises(InputError, match=words):
            refuse()


def test_an_estimator_without_a_key_is_refused():
    estimator = es_estimator(population=1, sigma=0.1)
    with pytest.raises(
        InputError, match=r"draws noise, .* `key=`, or the learner `inner_dropout=True`"
    ):
        descend(
            lambda w, key: (w, {}),
            jnp.float32(1),
            optax.sgd(0.1),
            steps=1,
            estimator=estimator,
        )


def test_an_objective_with_several_values_is_refused(key):
    """Times the noise they would broadcast to something that looks like a gradient."""
    with pytest.raises(InputError, match=r"returned an array \[3\]. Return a number"):
        es_grad(lambda w, key: (w**2, {}), jnp.ones(3), key, population=2, sigma=0.1)
    grad, _ = es_grad(lambda w, key: (3 * w, {}), 1.0, key, population=2, sigma=0.1)
    assert grad.shape == ()
