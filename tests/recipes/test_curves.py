"""The test of learners of curves, and of the exact posterior on the same tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.sets.gp import gp, gp_posterior, gp_task
from jaxdl.losses import Normal
from jaxdl.recipes.curves import exact_metrics, measure_of
from jaxdl.types import MetaLearner

KEY = jax.random.key(3)


def standard(adapted, x, *, key=None, weight=None):
    """A learner that predicts a standard normal everywhere."""
    return Normal(jnp.zeros_like(x), jnp.ones_like(x))


LEARNER = MetaLearner(None, lambda key, params, support, steps=None: (), standard, None)


@pytest.mark.slow
def test_both_see_the_same_tasks():
    found = measure_of(LEARNER, gp("matern"), episodes=6)(KEY, ())
    exact = exact_metrics("matern", KEY, episodes=6)
    assert found["context"].shape == exact["context"].shape == (6,)
    for e in range(6):
        key = jax.random.split(jax.random.fold_in(KEY, e))[0]
        support, query = jax.jit(gp("matern"))(key)
        _, length, scale = gp_task("matern", key)
        for name, part in (("log_likelihood", query), ("context", support)):
            at = np.asarray(part.weight) > 0
            y = np.asarray(part.y)[at]
            plain = stats.norm.logpdf(y).mean()
            np.testing.assert_allclose(found[name][e], plain, rtol=1e-4)
            given = gp_posterior("matern", length, scale, support, np.asarray(part.x)[at])
            np.testing.assert_allclose(exact[name][e], stats.norm.logpdf(y, *given).mean(), 1e-6)
    assert (exact["log_likelihood"].mean(), 0) > (found["log_likelihood"].mean(), 0)


def test_there_is_no_exact_posterior_of_a_sawtooth():
    assert exact_metrics("sawtooth", KEY, episodes=2) is None
