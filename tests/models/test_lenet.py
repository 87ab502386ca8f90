"""The net of the tutorial: its size, its values by NumPy, its start, and that it learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.grads import supervised
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.train import init_state, make_step
from jaxdl.types import Batch

KEY = jax.random.key(0)


def images(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("shape", "count"), [((2, 32, 32, 3), 62_006), ((2, 28, 28, 1), 44_426)])
def test_number_of_parameters(shape: Any, count: int) -> None:
    params = jax.eval_shape(lenet(10).init, KEY, jnp.ones(shape))
    assert size(params) == count


def test_value_by_numpy() -> None:
    x = images(2, 17, 18, 3)
    model = lenet(4)
    params = jax.jit(model.init)(KEY, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    y = np.asarray(x, np.float64)
    for i in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(y, (5, 5), axis=(1, 2))
        y = (
            np.einsum("nhwcij,ijco->nhwo", windows, p[f"Conv_{i}"]["kernel"])
            + p[f"Conv_{i}"]["bias"]
        )
        n, h, w, c = y.shape
        y = y[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        y = np.maximum(y, 0)
    y = y.reshape(2, -1)
    for i in range(3):
        y = y @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]
        y = np.maximum(y, 0) if i < 2 else y
    np.testing.assert_allclose(model.apply(params, x), y, rtol=1e-4, atol=1e-5)


def test_start_is_pytorchs_or_flaxs() -> None:
    params = jax.jit(lenet(10).init)(KEY, jnp.ones((1, 32, 32, 3)))
    for name, fan_in in {"Conv_0": 75, "Conv_1": 150, "Dense_0": 400, "Dense_1": 120}.items():
        for leaf in ("kernel", "bias"):
            values = np.asarray(params[name][leaf]) * fan_in**0.5
            assert np.abs(values).max() <= 1
            if values.size > 100:
                assert np.abs(values).max() > 0.95
                assert 0.54 < values.std() < 0.62  # 1 / sqrt(3)
    other = jax.jit(lenet(10, torch_init=False).init)(KEY, jnp.ones((1, 32, 32, 3)))
    assert not other["Conv_0"]["bias"].any()
    assert 0.95 < np.asarray(other["Dense_0"]["kernel"]).std() * 20 < 1.05


def test_dropout_only_with_a_key_and_after_both_dense_layers() -> None:
    model = lenet(3, dropout=0.5)
    x = images(4, 16, 16, 1)
    params = jax.jit(model.init)(KEY, x)
    apply = jax.jit(model.apply)
    plain = apply(params, x)
    np.testing.assert_array_equal(plain, jax.jit(lenet(3).apply)(params, x))
    draws = [apply(params, x, key=jax.random.key(i)) for i in (1, 2, 1)]
    assert not np.allclose(draws[0], plain)
    assert not np.allclose(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    # An inner product with a mask that keeps half and doubles: right in the mean.
    many = jax.vmap(lambda key: apply(params, x, key=key))(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(many.mean(0), plain, atol=0.05)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_it_learns_in_both_precisions(dtype: Any) -> None:
    model, tx = lenet(3, dtype=dtype), optax.adam(3e-3)
    x = images(12, 16, 16, 1)
    batch = Batch(x, jnp.arange(12, dtype=jnp.int32) % 3)
    state = init_state(jax.jit(model.init)(KEY, x), tx)
    step = jax.jit(make_step(supervised(model, cross_entropy), tx))
    losses = []
    for _ in range(40):
        state, metrics = step(KEY, state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * losses[0]
    assert model.apply(state.params, x).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("options", [{"classes": 0}, {"classes": 2, "dropout": 1.0}])
def test_wrong_options(options: Any) -> None:
    with pytest.raises(InputError, match="lenet needs classes >= 1"):
        lenet(**options)


def test_wrong_images() -> None:
    with pytest.raises(InputError, match="floating-point images"):
        lenet(2).init(KEY, jnp.ones((1, 28, 28, 1), jnp.uint8))
    with pytest.raises(InputError, match="16x16 pixels at least, not 16x15"):
        lenet(2).init(KEY, jnp.ones((1, 16, 15, 1)))
