from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.mlp import maml_kernel_init, mlp, mlp_omniglot


def test_two_layers_by_hand() -> None:
    model = mlp((3, 2), activation=jnp.tanh, bias_init=nn.initializers.normal())
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 1)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)
    first, last = (jax.tree.map(np.asarray, params[f"Dense_{i}"]) for i in range(2))
    hidden = np.tanh(np.asarray(x).reshape(4, 2) @ first["kernel"] + first["bias"])
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_maml_sine_net() -> None:
    model = mlp((40, 40, 1), kernel_init=maml_kernel_init)
    params = jax.jit(model.init)(jax.random.key(0), jnp.ones((10, 1)))
    shapes = [params[f"Dense_{i}"]["kernel"].shape for i in range(3)]
    assert shapes == [(1, 40), (40, 40), (40, 1)]
    middle = np.asarray(params["Dense_1"]["kernel"])
    assert np.abs(middle).max() <= 0.02  # cut at two sigma
    assert 0.0083 < middle.std() < 0.0093  # and not rescaled: 0.88 sigma
    assert all(not params[f"Dense_{i}"]["bias"].any() for i in range(3))


def test_norm_stands_before_the_activation_and_replaces_the_bias() -> None:
    model = mlp_omniglot(5)
    x = jnp.asarray(np.random.default_rng(0).random((6, 28, 28, 1)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)
    widths = [params[f"Dense_{i}"]["kernel"].shape[1] for i in range(5)]
    assert widths == [256, 128, 64, 64, 5]
    assert "bias" not in params["Dense_0"]
    assert "bias" in params["Dense_4"]
    assert set(params["BatchNorm_0"]) == {"bias"}
    params = jax.tree.map(np.asarray, params)
    hidden = np.asarray(x).reshape(6, -1)
    for i in range(4):
        hidden = hidden @ params[f"Dense_{i}"]["kernel"]
        hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-3)
        hidden = np.maximum(hidden + params[f"BatchNorm_{i}"]["bias"], 0)
    expected = hidden @ params["Dense_4"]["kernel"]
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("features", [(), (4, 0)])
def test_wrong_widths(features: Any) -> None:
    with pytest.raises(InputError, match="widths"):
        mlp(features)


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        mlp((2,)).init(jax.random.key(0), jnp.ones((2, 3), jnp.uint8))
