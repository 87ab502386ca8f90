from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.sets.sinusoid import sine, sinusoid, sinusoid_task
from jaxdl.errors import InputError


def test_the_points_lie_on_the_curve_of_sinusoid_task():
    for seed in range(5):
        key = jax.random.key(seed)
        support, query = jax.jit(sinusoid(shots=5, queries=3))(key)
        assert support.x.shape == support.y.shape == (5, 1)
        assert query.x.shape == query.y.shape == (3, 1)
        amplitude, phase = (float(value) for value in sinusoid_task(key))
        for batch in (support, query):
            x = np.asarray(batch.x, np.float64)
            np.testing.assert_allclose(batch.y, amplitude * np.sin(x - phase), atol=3e-6)
            np.testing.assert_allclose(batch.y, sine((amplitude, phase), batch.x), atol=3e-6)


def test_the_task_does_not_depend_on_the_number_of_points():
    key = jax.random.key(7)
    amplitude, phase = sinusoid_task(key)
    for shots, queries in ((1, 1), (10, 10), (20, 100)):
        episode = sinusoid(shots=shots, queries=queries)(key)
        np.testing.assert_allclose(
            episode.query.y, amplitude * jnp.sin(episode.query.x - phase), atol=3e-6
        )


def test_amplitude_phase_and_inputs_are_uniform_and_independent():
    keys = jax.random.split(jax.random.key(0), 4000)
    amplitude, phase = jax.vmap(sinusoid_task)(keys)
    support, query = jax.jit(jax.vmap(sinusoid(shots=1, queries=1)))(keys)
    columns = {
        "amplitude": (amplitude, 0.1, 5.0),
        "phase": (phase, 0.0, np.pi),
        "support": (support.x.ravel(), -5.0, 5.0),
        "query": (query.x.ravel(), -5.0, 5.0),
    }
    for name, (values, low, high) in columns.items():
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(np.asarray(values), uniform.cdf).pvalue > 1e-3, name
    correlation = np.corrcoef([np.asarray(values) for values, _, _ in columns.values()])
    assert np.abs(correlation - np.eye(4)).max() < 4 / np.sqrt(4000)


def test_many_keys_at_once_give_the_same_tasks_as_one_at_a_time():
    sample = sinusoid(shots=2, queries=3)
    keys = jax.random.split(jax.random.key(1), 4)
    together = jax.jit(jax.vmap(sample))(keys)
    alone = jax.tree.map(lambda *values: jnp.stack(values), *[sample(key) for key in keys])
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), together, alone)


@pytest.mark.parametrize(("shots", "queries"), [(0, 1), (1, 0), (-1, 5)])
def test_a_sampler_without_points_is_refused(shots, queries):
    with pytest.raises(InputError, match="at least 1"):
        sinusoid(shots=shots, queries=queries)
