"""Curves of Gaussian processes: kernels and posterior by scikit-learn, the draw, its jitter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, ExpSineSquared, Matern

from jaxdl.data.sets import gp as module
from jaxdl.data.sets.gp import CURVES, KERNELS, KINDS, gp, gp_posterior, gp_task, jitter
from jaxdl.errors import InputError
from jaxdl.types import Batch

SKLEARN = {
    "rbf": lambda length: RBF(length),
    "matern": lambda length: Matern(length, nu=2.5),
    "weakly_periodic": lambda period: ExpSineSquared(1.0, period) * RBF(2.0),
}
RNG = np.random.default_rng(0)


def drawn(kernel, count=400, **options):
    """Tasks, and their episodes, drawn by one compiled program."""
    keys = jax.random.split(jax.random.key(1), count)
    both = jax.jit(jax.vmap(lambda key: (gp_task(kernel, key), gp(kernel, **options)(key))))
    return jax.tree.map(np.asarray, both(keys))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_posterior_is_that_of_scikit_learn(kernel):
    x, y, asked = (RNG.uniform(-2, 2, size=(n, 1)) for n in (9, 9, 5))
    length, scale, noise = 0.3, 0.7, 0.05
    variance = noise**2 + scale**2 * jitter(kernel, 14)
    whole = ConstantKernel(scale**2) * SKLEARN[kernel](length)
    oracle = GaussianProcessRegressor(whole, alpha=variance, optimizer=None).fit(x, y)
    mean, std = oracle.predict(asked, return_std=True)
    options = {"noise": noise, "points": 14}
    found = gp_posterior(kernel, length, scale, Batch(x, y), asked, **options)
    np.testing.assert_allclose(found.mean[:, 0], mean.ravel(), atol=1e-6)
    np.testing.assert_allclose(found.scale[:, 0], np.sqrt(std**2 + variance), atol=1e-6)


def test_a_masked_posterior_is_that_of_the_points_that_count_and_stacks():
    x, y = RNG.normal(size=(2, 3, 6, 1))
    counts = np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    hidden = Batch(np.where(counts[..., None], x, 0.1), np.where(counts[..., None], y, np.nan))
    asked = RNG.normal(size=(3, 4, 1))
    length, scale = np.array([0.2, 0.5, 0.4]), np.array([0.3, 0.9, 0.5])
    found = gp_posterior("rbf", length, scale, hidden._replace(weight=counts), asked)
    for task, at in enumerate(counts > 0):
        cut = Batch(x[task, at], y[task, at])
        alone = gp_posterior("rbf", length[task], scale[task], cut, asked[task])
        np.testing.assert_allclose(found.mean[task], alone.mean, atol=1e-12)
        np.testing.assert_allclose(found.scale[task], alone.scale, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_whitened_by_their_own_covariance_the_values_are_standard_normal(kernel):
    """The covariance by scikit-learn, with the lengthscale and the scale that `gp_task` says."""
    task, (support, query) = drawn(kernel, shots=8, queries=7)
    assert support.weight is None
    x, y = (np.concatenate([a, b[:, ::-1]], 1) for a, b in zip(support[:2], query[:2], strict=True))
    white = []
    for row in range(len(x)):
        own = task.scale[row] ** 2 * SKLEARN[kernel](float(task.length[row]))(x[row].astype(float))
        own += 0.02**2 * np.eye(15)
        white.append(np.linalg.solve(np.linalg.cholesky(own), y[row]))
    white = np.concatenate(white).ravel()
    assert stats.kstest(white, stats.norm.cdf).pvalue > 1e-3
    np.testing.assert_allclose(white.std(), 1, atol=4 / np.sqrt(2 * len(white)))


def test_lengths_scales_and_inputs_are_uniform():
    task, (support, query) = drawn("rbf", 2000, shots=1, queries=1)
    columns = {
        "length": (task.length, 0.1, 0.6),
        "scale": (task.scale, 0.1, 1.0),
        "support": (support.x.ravel(), -2, 2),
        "query": (query.x.ravel(), -2, 2),
    }
    for name, (values, low, high) in columns.items():
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
    correlation = np.corrcoef([values for values, _, _ in columns.values()])
    assert np.abs(correlation - np.eye(4)).max() < 4 / np.sqrt(2000)


def test_numbers_of_points_are_those_of_the_benchmark_and_rows_of_weight_0_are_empty():
    """Context uniform in 3 to 46, targets uniform in 3 to what 49 points leave."""
    _, episode = drawn("rbf", 3000)
    given, asked = (part.weight.sum(axis=1).astype(int) for part in episode)
    for part, count in zip(episode, (given, asked), strict=True):
        assert part.x.shape == (3000, 46, 1)
        np.testing.assert_array_equal(part.weight, np.arange(46) < count[:, None])
        assert not part.x[part.weight == 0].any()
        assert not part.y[part.weight == 0].any()
    assert (given.min(), given.max()) == (3, 46)
    assert asked.min() == 3
    assert (given + asked).max() <= 49
    frequency = np.bincount(given, minlength=47)[3:]
    assert stats.chisquare(frequency).pvalue > 1e-3
    position = (asked - 3 + 0.5) / (49 - given - 3 + 1)  # uniform, whatever the context
    assert abs(position.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 3000)


def test_a_mixture_has_each_kind_as_often_and_draws_it_as_the_kind_itself():
    """By the same key: the values of a kind of curve differ in the jitter alone."""
    keys = jax.random.split(jax.random.key(1), 400)
    sizes = {"shots": 8, "queries": 7}
    task, mixed = drawn("mixture", **sizes)
    assert stats.chisquare(np.bincount(task.kind, minlength=4)).pvalue > 1e-3
    for kind in ("matern", "sawtooth"):
        of_kind = task.kind == KINDS.index(kind)
        alone = jax.jit(jax.vmap(gp(kind, **sizes)))(keys)
        for one, other in zip(mixed, alone, strict=True):
            np.testing.assert_allclose(one.y[of_kind], other.y[of_kind], atol=1e-5)
            assert not np.allclose(one.y[~of_kind], other.y[~of_kind], atol=1e-2)


def test_a_sawtooth_climbs_from_0_to_its_scale_within_its_period():
    curve = module.Curve(jnp.int32(3), jnp.float32(0.5), jnp.float32(0.8))
    x = jnp.linspace(-2, 2, 4001)
    y = np.asarray(jax.jit(module.sawtooth)(jax.random.key(0), curve, x))
    np.testing.assert_allclose(y[500:], y[:-500], atol=1e-3)  # period
    slope = np.median(np.diff(y)) / (x[1] - x[0])
    np.testing.assert_allclose(slope, 0.8 / 0.5, rtol=0.1)
    np.testing.assert_allclose(np.quantile(y, [0.05, 0.5, 0.95]), [0.04, 0.4, 0.76], atol=0.03)


@partial(jax.jit, static_argnums=(0, 1))
def failures(kernel, count, share, key):
    """How many of so many covariances, with a share of the jitter, float32 cannot factor."""

    def of_task(key):
        curve, x_key = gp_task(kernel, key), jax.random.fold_in(key, 1)
        x = jax.random.uniform(x_key, (49,), minval=-2.0, maxval=2.0)
        covariance = KERNELS[kernel](x[:, None] - x[None], curve.length, jnp)
        diagonal = share * jitter(kernel, 49) * jnp.eye(49)
        factor = lax.linalg.cholesky(covariance + diagonal, symmetrize_input=False)
        return ~jnp.isfinite(factor).all()

    return lax.map(of_task, jax.random.split(key, count), batch_size=250).sum()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_jitter_suffices_and_a_fiftieth_of_it_does_not(kernel):
    assert failures(kernel, 500, 1.0, jax.random.key(0)) == 0
    assert failures(kernel, 500, 0.02, jax.random.key(0)) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_of_a_million_tasks_none_fails(kernel):
    counts = [failures(kernel, 50_000, 1.0, jax.random.key(seed)) for seed in range(20)]
    assert sum(map(int, counts)) == 0


def test_mistakes_are_refused():
    with pytest.raises(InputError, match=r"`kernel=cosine`: choose among rbf matern"):
        gp("cosine")
    with pytest.raises(InputError, match="cannot be drawn"):
        gp(shots=(3, 47), points=49)
    with pytest.raises(InputError, match="cannot be drawn"):
        gp(noise=-0.1)
    with pytest.raises(InputError, match="shots=0 must be a whole number"):
        gp(shots=0)
    with pytest.raises(InputError, match="`kernel=sawtooth` has no exact posterior"):
        gp_posterior("sawtooth", 1.0, 1.0, Batch(np.ones((1, 1)), np.ones((1, 1))), np.ones((1, 1)))
    assert set(KINDS) < set(CURVES)
