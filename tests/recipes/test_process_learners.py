"""A neural process as a regressor: trained by likelihood as ever, its predictions are means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.losses import gaussian_nll, mean_squared_error
from jaxdl.models.mlp import mlp
from jaxdl.recipes.learners import PROCESSES, REGRESSORS

SMALL = {
    "cnp": {"width": 8},
    "canp": {"width": 8},
    "lnp": {"width": 8},
    "anp": {"width": 8},
    "tnp_d": {"width": 8, "layers": 1},
}


@pytest.mark.parametrize("name", SMALL)
def test_predictions_are_means_and_the_gradient_is_that_of_the_likelihood(name):
    features, own = mlp((6,)), {"ways": 1, **SMALL[name]}
    process = PROCESSES[name](features, gaussian_nll, **own)
    regressor = REGRESSORS[name](features, mean_squared_error, **own)
    key = jax.random.key(0)
    episode = sinusoid(shots=4, queries=3)(key)
    params = jax.jit(process.init)(key, episode.support.x)

    adapted = jax.jit(process.adapt)(key, params, episode.support)
    theirs = np.asarray(jax.jit(process.predict)(adapted, episode.query.x).mean, np.float64)
    if theirs.ndim == 3:
        assert theirs.std(axis=-1).min() > 0  # samples that differ
        theirs = theirs.mean(axis=-1)
    ours = jax.jit(regressor.predict)(adapted, episode.query.x)
    assert ours.shape == (3, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    mean_squared_error(ours, episode.query.y)  # which refuses other shapes

    step = jnp.int32(0)
    gradients = [jax.jit(each.grad)(key, step, params, episode)[0] for each in (process, regressor)]
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 0


def test_all_but_the_grid_of_inputs_are_regressors():
    """A ConvCNP takes inputs of one dimension, in a range that it must know."""
    assert SMALL.keys() == PROCESSES.keys() & REGRESSORS.keys() - {"maml"}
    assert PROCESSES.keys() - REGRESSORS.keys() == {"convcnp"}
