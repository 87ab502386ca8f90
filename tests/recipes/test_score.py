"""`score` is NumPy's mean over the episodes that `evaluate` sees, with the right interval."""

from functools import partial

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
from jaxdl.recipes import score as module
from jaxdl.recipes.blocks import in_blocks
from jaxdl.recipes.score import score, score_by_seed
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


def test_devices_share_the_episodes():
    """30 episodes on 4 devices: the last device repeats one, which does not count."""
    options = {"episodes": 30, "depths": (0, None), "chunk": 1}
    alone, shared = (
        evaluate(LEARNER, mean_squared_error, SAMPLE, devices=n, **options)(KEY, FIRST)["loss"]
        for n in (1, 4)
    )
    assert shared.shape == (2, 30)
    assert shared.devices() == alone.devices()
    np.testing.assert_allclose(shared, alone, rtol=1e-6)


def test_over_seeds_by_students_t():
    found = score(LEARNER, PARAMS, mean_squared_error, SAMPLE, **OPTIONS)["loss"]
    means = [losses(jax.tree.map(lambda leaf, s=s: leaf[s], PARAMS)).mean() for s in range(3)]
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    np.testing.assert_allclose(found[:3], (np.mean(means), low, high), rtol=1e-5)
    assert found.over == "3 seeds"


def test_a_test_in_blocks_has_the_episodes_of_the_whole(monkeypatch):
    """32 episodes are 3 blocks of 11, of which the last has one too many."""
    monkeypatch.setattr(module, "in_blocks", partial(in_blocks, most=10))
    options = {"loss": mean_squared_error, "sample": SAMPLE, "chunk": 1}
    found = score_by_seed(LEARNER, PARAMS, episodes=32, key=KEY, **options)["loss"]
    whole = evaluate(LEARNER, mean_squared_error, SAMPLE, episodes=32, chunk=1)
    for seed, row in enumerate(found):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], PARAMS)
        np.testing.assert_array_equal(row, whole(KEY, params)["loss"][0])


@pytest.mark.parametrize("seeds", [1, 8])  # of 8 seeds a bias [8] is as a kernel [1, 8] is long
def test_one_seed_with_an_axis_has_no_interval_and_as_many_as_units_are_seeds(seeds):
    keys = jax.random.split(KEY, seeds)
    params = jax.vmap(lambda key: LEARNER.init(key, jnp.zeros((1, 1))))(keys)
    found = score(LEARNER, params, mean_squared_error, SAMPLE, **OPTIONS)["loss"]
    assert found.over == f"{seeds} seed{'s' * (seeds > 1)}"
    assert np.isnan(found.low) == (seeds == 1)


@pytest.mark.parametrize(
    "params", [{"w": jnp.zeros(3)}, jax.tree.map(lambda leaf: leaf[None], PARAMS)]
)
def test_parameters_of_another_learner_are_refused(params):
    with pytest.raises(InputError, match="Give those of this learner"):
        score(LEARNER, params, mean_squared_error, SAMPLE, **OPTIONS)


def test_an_interval_reads_as_papers_print_it():
    assert str(Interval(0.5, 0.25, 0.75, "9 seeds")) == "0.5 ± 0.25 (95 % over 9 seeds)"
    assert str(Interval(2e-5, 1e-5, 3e-5, "2 seeds")) == "2e-05 ± 1e-05 (95 % over 2 seeds)"
