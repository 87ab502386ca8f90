from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.mlp import INITIALISERS, maml_kernel_init, mlp, mlp_omniglot


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


@pytest.mark.parametrize(
    ("name", "variance"),
    [("lecun", 1 / 300), ("glorot", 2 / 500), ("he", 2 / 300), ("small", 1e-4)],
)
def test_initialisers_have_the_variance_of_their_papers(name: str, variance: float) -> None:
    params = mlp((200,), kernel_init=INITIALISERS[name]).init(jax.random.key(0), jnp.ones((1, 300)))
    kernel = np.asarray(params["Dense_0"]["kernel"])
    # 60,000 draws: the sample variance is within 2 % nearly always.
    np.testing.assert_allclose(kernel.var(), variance, rtol=0.03)
    assert abs(kernel.mean()) < 0.02 * variance**0.5


def test_dropout_zeroes_hidden_activations_and_keeps_their_mean() -> None:
    ones = nn.initializers.ones
    model = mlp((4000, 1), kernel_init=ones, dropout=0.25)
    x = jnp.ones((2, 1))
    params = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(model.apply(params, x), 4000, rtol=1e-6)  # no key, no dropout
    found = np.asarray(model.apply(params, x, key=jax.random.key(1)))[:, 0]
    # Each unit is 0 or 1 / 0.75, so that the sum is 4000 with deviation sqrt(4000 / 3) = 37.
    assert (np.abs(found - 4000) < 150).all()
    assert found[0] != found[1]
    whole = found * 0.75
    np.testing.assert_allclose(whole, whole.round(), atol=1e-2)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_rate_out_of_range(dropout: float) -> None:
    with pytest.raises(InputError, match="dropout rate in"):
        mlp((3,), dropout=dropout)


@pytest.mark.parametrize("features", [(), (4, 0)])
def test_wrong_widths(features: Any) -> None:
    with pytest.raises(InputError, match="widths"):
        mlp(features)


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        mlp((2,)).init(jax.random.key(0), jnp.ones((2, 3), jnp.uint8))
