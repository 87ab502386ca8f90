from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxdl.errors import InputError
from jaxdl.models.conv4 import conv4_omniglot, conv4_pooled

library_pool: Any = nn.max_pool


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def reference(params: Any, x: Any, pooled: bool) -> Any:
    """conv-4 written out with library functions, blocks in the order of the MAML code."""
    stride = 1 if pooled else 2
    for i in range(4):
        kernel = params[f"Conv_{i}"]["kernel"]
        x = lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = (x - x.mean((0, 1, 2))[None, None, None]) / jnp.sqrt(x.var((0, 1, 2)) + 1e-3)[
            None, None, None
        ]
        x = nn.relu(x + params[f"BatchNorm_{i}"]["bias"][None, None, None])
        if pooled:
            x = library_pool(x, (2, 2), (2, 2))
    x = x.reshape(x.shape[0], -1) if pooled else x.mean((1, 2))
    return x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]


def setting(pooled: bool) -> Any:
    make = conv4_pooled if pooled else conv4_omniglot
    model = make(3, filters=4)
    size = 19 if pooled else 12
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, size, size, 2)))
    params = jax.jit(model.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda a: jnp.asarray(a + 0.1 * rng.normal(size=a.shape)), params)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), params)
    return model, params, direction, x


@pytest.mark.parametrize("pooled", [False, True])
def test_value_and_two_derivatives(pooled: bool) -> None:
    model, params, direction, x = setting(pooled)
    assert set(params["Conv_0"]) == {"kernel"}
    assert set(params["BatchNorm_0"]) == {"bias"}

    def derivatives(apply: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.sum(jnp.square(jax.nn.log_softmax(apply(params))))

        return apply(params), *jax.jvp(jax.grad(loss), (params,), (direction,))

    ours = jax.jit(lambda: derivatives(lambda p: model.apply(p, x)))()
    theirs = jax.jit(lambda: derivatives(lambda p: reference(p, x, pooled)))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = float(jnp.abs(b).max()) + 1e-30
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-10)


def test_shapes_of_the_paper() -> None:
    shapes = jax.eval_shape(conv4_omniglot(5).init, jax.random.key(0), jnp.ones((2, 28, 28, 1)))
    assert shapes["Conv_0"]["kernel"].shape == (3, 3, 1, 64)
    assert shapes["Conv_3"]["kernel"].shape == (3, 3, 64, 64)
    assert shapes["Dense_0"]["kernel"].shape == (64, 5)
    shapes = jax.eval_shape(conv4_pooled(5).init, jax.random.key(0), jnp.ones((2, 84, 84, 3)))
    assert shapes["Dense_0"]["kernel"].shape == (5 * 5 * 32, 5)
    shapes = jax.eval_shape(conv4_pooled(5).init, jax.random.key(0), jnp.ones((2, 32, 32, 3)))
    assert shapes["Dense_0"]["kernel"].shape == (2 * 2 * 32, 5)


def test_initialisers_of_the_maml_code() -> None:
    x = jnp.ones((2, 28, 28, 1))
    params = jax.jit(conv4_omniglot(64).init)(jax.random.key(0), x)
    assert 0.95 < float(params["Dense_0"]["kernel"].std()) < 1.05
    bound = np.sqrt(6 / (9 * 64 + 9 * 64))
    kernel = np.abs(np.asarray(params["Conv_1"]["kernel"]))
    assert 0.99 * bound < kernel.max() <= bound
    pooled = jax.jit(conv4_pooled(5).init)(jax.random.key(0), jnp.ones((2, 32, 32, 3)))
    head = np.abs(np.asarray(pooled["Dense_0"]["kernel"]))
    assert 0.95 * np.sqrt(6 / 133) < head.max() <= np.sqrt(6 / 133)


@pytest.mark.parametrize("ways", [None, 0])
def test_without_head_features_come_out(ways: int | None) -> None:
    x = jnp.ones((2, 16, 16, 1))
    for make, width in ((conv4_omniglot, 4), (conv4_pooled, 4)):
        model = make(ways, filters=4)
        params = jax.eval_shape(model.init, jax.random.key(0), x)
        assert "Dense_0" not in params
        assert jax.eval_shape(model.apply, params, x).shape == (2, width)


def test_example_norm_keeps_queries_apart() -> None:
    model = conv4_omniglot(3, filters=4, norm="example")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 28, 28, 1)))
    params = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(params, x)[:1], apply(params, x[:1]), rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.ones((2, 28, 28, 1), np.uint8), "float32"),
        (np.ones((2, 28, 28), np.float32), "floating-point images"),
    ],
)
def test_wrong_images(x: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        conv4_omniglot(5).init(jax.random.key(0), x)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="ways"):
        conv4_omniglot(-1)
    with pytest.raises(InputError, match="filters"):
        conv4_pooled(5, filters=0)
    with pytest.raises(InputError, match="16x16"):
        jax.eval_shape(conv4_pooled(5).init, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
    model = conv4_omniglot(5, norm="running")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'batch' or 'example'"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 28, 28, 1)))
