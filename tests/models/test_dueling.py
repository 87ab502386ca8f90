"""Dueling nets against their equation."""

import jax
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.dueling import dueling


def test_values_are_those_of_equation_nine(key):
    net = dueling((5, 4), 3)
    x = jax.random.normal(key, (6, 2))
    params = jax.jit(net.init)(key, x)
    # Biases that are not 0, and an advantage whose mean is far from it.
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    found = np.asarray(jax.jit(net.apply)(params, x), np.float64)

    def dense(name, x):
        return x @ np.float64(params[name]["kernel"]) + np.float64(params[name]["bias"])

    shared = np.maximum(dense("Dense_0", np.float64(x)), 0)
    value, advantage = (
        dense(name, np.maximum(dense(f"{name}_hidden", shared), 0))
        for name in ("value", "advantage")
    )
    np.testing.assert_allclose(
        found, value + advantage - advantage.mean(axis=1, keepdims=True), rtol=1e-5
    )
    np.testing.assert_allclose(found.mean(axis=1), value[:, 0], rtol=1e-5)
    assert np.ptp(found, axis=1).min() > 0


@pytest.mark.parametrize(("hidden", "actions"), [((), 2), ((0,), 2), ((4,), 0)])
def test_widths_that_make_no_net_are_refused(hidden, actions):
    with pytest.raises(InputError, match=r"dueling cannot .*\. Give widths"):
        dueling(hidden, actions)
