import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.report.intervals import mean_ci95, seeds_mean_ci95, seeds_summary, summary


def test_interval_of_a_case_worked_by_hand():
    # Deviations -3, -1, 1, 3: s^2 = 20 / 3, standard error sqrt(20 / 3 / 4) = 1.29099.
    mean, half_width = mean_ci95([1.0, 3.0, 5.0, 7.0])
    assert mean == 4.0
    assert half_width == pytest.approx(1.959964 * 1.2909944, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_intervals_are_those_of_scipy(n):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    error = stats.sem(values)
    for function, distribution in ((mean_ci95, stats.norm()), (seeds_mean_ci95, stats.t(n - 1))):
        mean, half_width = function(values)
        low, high = mean - half_width, mean + half_width
        expected = np.mean(values) + error * np.asarray(distribution.ppf([0.025, 0.975]))
        np.testing.assert_allclose([low, high], expected, rtol=1e-6)


def test_intervals_cover_the_truth_in_95_of_100_trials():
    values = np.random.default_rng(0).normal(size=(20_000, 3))
    mean, half_width = seeds_mean_ci95(values, axis=1)
    assert np.mean(np.abs(mean) < half_width) == pytest.approx(0.95, abs=0.006)
    mean, half_width = mean_ci95(np.random.default_rng(1).normal(size=(600, 5000)))
    assert np.mean(np.abs(mean) < half_width) == pytest.approx(0.95, abs=0.012)


def test_axis_and_array_kind_do_not_matter():
    values = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    columns = [mean_ci95(column) for column in values.T]
    for given in (mean_ci95(values), mean_ci95(jnp.asarray(values)), mean_ci95(values.T, axis=-1)):
        np.testing.assert_allclose(np.transpose(given), columns, rtol=1e-12)


def test_float32_values_are_averaged_in_float64():
    values = 10_000.0 + (jnp.arange(3000, dtype=jnp.float32) % 3 == 0)
    assert values.dtype == jnp.float32
    mean, half_width = mean_ci95(values)
    assert mean == pytest.approx(10_000 + 1 / 3, rel=1e-12)
    assert half_width == pytest.approx(1.959964 * np.sqrt(2 / 9 / 2999), rel=1e-9)


def test_one_value_has_no_interval_and_none_is_an_error():
    for function in (mean_ci95, seeds_mean_ci95):
        mean, half_width = function([2.0])
        assert mean == 2.0
        assert np.isnan(half_width)
        with pytest.raises(InputError, match="there are no values"):
            function([])
        with pytest.raises(InputError, match="there are no values"):
            function(1.0)
    assert summary([2.0])["ci95"] is seeds_summary([2.0])["ci95"] is None


def test_divergence_is_shown_and_leaves_the_median():
    figures = summary([1.0, 2.0, 3.0, 4.0, np.inf])
    assert figures["mean"] == np.inf
    assert np.isnan(figures["ci95"])
    assert figures["median"] == 3.0
    assert np.isnan(summary([1.0, np.nan])["mean"])


def test_summaries_are_plain_numbers():
    accuracy = jnp.array([[0.5, 1.0], [0.0, 0.5]])
    assert json.loads(json.dumps(summary(accuracy))) == {
        "mean": 0.5,
        "ci95": pytest.approx(1.959964 * np.sqrt(0.5 / 3 / 4), rel=1e-6),
        "median": 0.5,
        "episodes": 4,
    }
    assert json.loads(json.dumps(seeds_summary(jnp.array([1.0, 2.0, 3.0])))) == {
        "mean": 2.0,
        "ci95": pytest.approx(4.302653 / np.sqrt(3), rel=1e-6),
        "seeds": 3,
        "values": [1.0, 2.0, 3.0],
    }
    figures = summary(accuracy) | seeds_summary(accuracy)
    assert {type(value) for value in figures.values()} == {float, int, list}
