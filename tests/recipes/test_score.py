"""`score` is NumPy's mean over the episodes that `evaluate` sees, with the right interval."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta.base import evaluate
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.recipes.score import score
from jaxdl.report.intervals import Interval

KEY = jax.random.key(5)
SAMPLE = sinusoid(shots=5, queries=5)
LEARNER = maml(mlp((8, 1)), mean_squared_error, tx=optax.sgd(0.01), steps=1)
PARAMS = jax.vmap(lambda key: LEARNER.init(key, jnp.zeros((1, 1))))(jax.random.split(KEY, 3))
FIRST = jax.tree.map(lambda leaf: leaf[0], PARAMS)
OPTIONS = {"episodes": 30, "key": KEY}


def losses(params, depth=None):
    run = evaluate(LEARNER, mean_squared_error, SAMPLE, episodes=30, depths=(depth,))
    return np.float64(run(KEY, params)["loss"][0])


@pytest.mark.parametrize("steps", [None, 0, 3])
def test_over_episodes(steps):
    found = score(LEARNER, FIRST, mean_squared_error, SAMPLE, steps=steps, **OPTIONS)["loss"]
    values = losses(FIRST, steps)
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(30)
    expected = values.mean(), values.mean() - half, values.mean() + half
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5)
    assert found.over == "30 episodes"


def test_over_seeds_by_students_t():
    found = score(LEARNER, PARAMS, mean_squared_error, SAMPLE, seeds=3, **OPTIONS)["loss"]
    means = [losses(jax.tree.map(lambda leaf, s=s: leaf[s], PARAMS)).mean() for s in range(3)]
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    np.testing.assert_allclose(found[:3], (np.mean(means), low, high), rtol=1e-5)
    assert found.over == "3 seeds"


def test_seeds_that_the_parameters_do_not_have_are_refused():
    with pytest.raises(InputError, match="`seeds=2`: the parameters have a leading axis of 3"):
        score(LEARNER, PARAMS, mean_squared_error, SAMPLE, seeds=2, **OPTIONS)


def test_an_interval_reads_as_papers_print_it():
    assert str(Interval(0.5, 0.25, 0.75, "9 seeds")) == "0.5 ± 0.25 (95 % over 9 seeds)"
    assert str(Interval(2e-5, 1e-5, 3e-5, "2 seeds")) == "2e-05 ± 1e-05 (95 % over 2 seeds)"
