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
from jaxdl.train.steps import init_state, make_step
from jaxdl.types import Batch

KEY = jax.random.key(0)


X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 17, 18, 3)), jnp.float32)


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.jit(lenet(3).init)(KEY, X)


def size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("shape", "count"), [((2, 32, 32, 3), 62_006), ((2, 28, 28, 1), 44_426)])
def test_number_of_parameters(shape: Any, count: int) -> None:
    params = jax.eval_shape(lenet(10).init, KEY, jnp.ones(shape))
    assert size(params) == count


def test_value_by_numpy(params: Any) -> None:
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    y = np.asarray(X[:2], np.float64)
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
    np.testing.assert_allclose(jax.jit(lenet(3).apply)(params, X[:2]), y, rtol=1e-4, atol=1e-5)


def test_start_is_pytorchs_or_flaxs(params: Any) -> None:
    for name, fan_in in {"Conv_0": 75, "Conv_1": 150, "Dense_0": 16, "Dense_1": 120}.items():
        for leaf in ("kernel", "bias"):
            values = np.asarray(params[name][leaf]) * fan_in**0.5
            assert np.abs(values).max() <= 1
            if values.size > 100:
                assert np.abs(values).max() > 0.95
                assert 0.54 < values.std() < 0.62  # 1 / sqrt(3)
    other = jax.jit(lenet(3, torch_init=False).init)(KEY, X)
    assert not other["Conv_0"]["bias"].any()
    assert 0.95 < np.asarray(other["Dense_1"]["kernel"]).std() * 120**0.5 < 1.05


def test_dropout_only_with_a_key_and_after_both_dense_layers(params: Any) -> None:
    apply = jax.jit(lenet(3, dropout=0.5).apply)
    plain = apply(params, X)
    np.testing.assert_array_equal(plain, apply(params, X))
    draws = [apply(params, X, key=jax.random.key(i)) for i in (1, 2, 1)]
    assert not np.allclose(draws[0], plain)
    assert not np.allclose(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    # Weights of 1: a logit is 4 times the kept units of the first layer times those of the second.
    ones = {name: jax.tree.map(jnp.zeros_like, layer) for name, layer in params.items()}
    ones["Dense_0"]["bias"] = jnp.ones(120)
    ones["Dense_1"]["kernel"] = jnp.ones((120, 84))
    ones["Dense_2"]["kernel"] = jnp.ones((84, 3))
    first_alone = apply(
        {**ones, "Dense_2": {**ones["Dense_2"], "kernel": jnp.eye(84, 3)}}, X, key=KEY
    )
    kept = np.asarray(apply(ones, X, key=KEY)[:, 0])
    first = np.asarray(first_alone).max(1) / 4  # a single unit of the second layer, kept or not
    for total, one in zip(kept, first, strict=True):
        if one:
            assert 40 < one < 80
            assert total % (4 * one) == 0
            assert 25 < total / (4 * one) < 60
    assert (first > 0).sum() > 5


def test_it_learns_in_bfloat16(params: Any) -> None:
    model, tx = lenet(3, dtype=jnp.bfloat16), optax.adam(3e-3)
    batch = Batch(X, jnp.arange(12, dtype=jnp.int32) % 3)
    state = init_state(params, tx)
    step = jax.jit(make_step(supervised(model, cross_entropy), tx))
    losses = []
    for _ in range(40):
        state, metrics = step(KEY, state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * losses[0]
    assert jax.eval_shape(model.apply, params, X).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("options", [{"classes": 0}, {"classes": 2, "dropout": 1.0}])
def test_wrong_options(options: Any) -> None:
    with pytest.raises(InputError, match=r"lenet cannot .*\. Give classes >= 1"):
        lenet(**options)


def test_wrong_images() -> None:
    with pytest.raises(InputError, match="floating-point images"):
        lenet(2).init(KEY, jnp.ones((1, 28, 28, 1), jnp.uint8))
    with pytest.raises(InputError, match="16x16 pixels at least, not 16x15"):
        lenet(2).init(KEY, jnp.ones((1, 16, 15, 1)))
