"""Normal policies against SciPy, a Monte-Carlo mean, and what is asked of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.models.mlp import mlp
from jaxdl.rl.gaussian import Gaussian, gaussian_policy, kl_divergence

P = Gaussian(jnp.array([[0.5, -1.0], [0.0, 2.0]]), jnp.array([[0.0, -0.7], [0.3, -1.0]]))
Q = Gaussian(jnp.array([[0.1, -0.8], [0.4, 2.0]]), jnp.array([[0.2, -0.4], [-0.3, -1.2]]))


@pytest.fixture(scope="module")
def draws():
    keys = jax.random.split(jax.random.key(0), 20_000)
    return np.asarray(jax.jit(jax.vmap(P.sample))(keys))


def test_density_and_draws_are_those_of_independent_normals(draws):
    action = np.array([[0.3, -0.5], [1.0, 1.5]])
    expected = stats.norm.logpdf(action, P.mean, np.exp(P.log_std)).sum(1)
    np.testing.assert_allclose(jax.jit(P.log_prob)(action), expected, rtol=1e-5)
    np.testing.assert_allclose(draws.mean(0), P.mean, atol=0.06)
    np.testing.assert_allclose(draws.std(0), np.exp(P.log_std), rtol=0.05)


def test_divergence_is_the_mean_log_ratio_under_the_first(draws):
    ratios = jax.jit(jax.vmap(lambda x: P.log_prob(x) - Q.log_prob(x)))(draws)
    ratios = np.asarray(ratios)
    there, back, none = jax.jit(lambda: [kl_divergence(*d) for d in ((P, Q), (Q, P), (P, P))])()
    error = 4 * ratios.std(0) / np.sqrt(20_000)
    assert (np.abs(there - ratios.mean(0)) < error).all()
    assert (np.abs(back - ratios.mean(0)) > error).all()  # it is not symmetric
    np.testing.assert_allclose(none, 0, atol=1e-7)


def test_the_policy_is_a_net_and_a_deviation_for_any_leading_axes():
    net = mlp((8, 2))
    policy = gaussian_policy(net, actions=2, std=0.5)
    x = jax.random.normal(jax.random.key(0), (5, 3, 4))
    params = jax.jit(policy.init)(jax.random.key(1), x)
    out = jax.jit(policy.apply)(params, x)
    np.testing.assert_allclose(out.mean[2], jax.jit(net.apply)(params["net"], x[2]), rtol=1e-5)
    np.testing.assert_allclose(out.log_std, np.full((5, 3, 2), np.log(0.5)), rtol=1e-6)
    certain = jax.jit(policy.apply)(params | {"log_std": jnp.full(2, -100.0)}, x)
    np.testing.assert_allclose(np.exp(certain.log_std), 1e-6, rtol=1e-4)


def test_a_flax_module_is_refused_with_the_word_pure():
    with pytest.raises(InputError, match=r"Dense is no Model: .*pure"):
        gaussian_policy(nn.Dense(2), actions=2)


def test_no_deviation_is_refused():
    with pytest.raises(InputError, match=r"`std=0\.0` is a standard deviation"):
        gaussian_policy(mlp((2,)), actions=2, std=0.0)
