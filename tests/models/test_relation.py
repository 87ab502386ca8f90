"""The relation module, layer by layer in NumPy, and on the sizes of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.relation import relation


def test_scores_of_vectors_by_numpy(key):
    pairs = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    module = relation(hidden=4)
    params = module.init(key, jnp.asarray(pairs))
    shapes = [params[f"Dense_{i}"]["kernel"].shape for i in range(4)]
    assert shapes == [(6, 3), (3, 3), (3, 4), (4, 1)]
    x = pairs
    for i in range(4):
        kernel, bias = (np.asarray(params[f"Dense_{i}"][name]) for name in ("kernel", "bias"))
        x = x @ kernel + bias
        x = np.maximum(x, 0) if i < 3 else x
    np.testing.assert_allclose(module.apply(params, jnp.asarray(pairs)), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("side", "left"), [(5, 1), (8, 2), (1, 1)])
def test_maps_are_halved_twice_while_they_can_be(side, left, key):
    module, x = relation(), jnp.zeros((2, side, side, 6))
    params = jax.eval_shape(module.init, key, x)
    assert params["Dense_0"]["kernel"].shape == (left * left * 3, 8)
    assert jax.eval_shape(module.apply, params, x).shape == (2, 1)


def test_no_units_are_refused():
    with pytest.raises(InputError, match=r"cannot have hidden=0. Give at least 1 unit"):
        relation(0)
