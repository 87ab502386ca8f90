from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.linen import pure
from jaxdl.models.norm import BatchNorm, standardise


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def images(seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(3.0, 2.0, size=(4, 3, 5, 2)))


def plain(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    r = 1 / jnp.sqrt(variance + epsilon)
    return (x - mean) * r, x - mean, r


@pytest.mark.parametrize("mode", ["batch", "example"])
def test_value_is_numpys(mode: Any) -> None:
    x = np.asarray(images())
    axes = (0, 1, 2) if mode == "batch" else (1, 2)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([-1.0, 5.0])}
    y = pure(BatchNorm(mode)).apply(params, jnp.asarray(x))
    np.testing.assert_allclose(y, expected * [2, 3] + [-1, 5], rtol=1e-12)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2)])
def test_derivatives_are_those_of_the_plain_formula(axes: tuple[int, ...]) -> None:
    """First, second (both modes) and third, of all outputs, batched and not."""
    x, dx = images(), images(1)

    def derivatives(f: Any) -> Any:
        def loss(x: Any) -> Any:
            z, c, r = f(x, axes, 1e-3)
            return jnp.sum(jnp.sin(z) * x) + jnp.sum(jnp.cos(c)) + jnp.sum(jnp.exp(r))

        grad = jax.grad(loss)
        forward = jax.jvp(grad, (x,), (dx,))[1]
        reverse = jax.grad(lambda x: jnp.vdot(grad(x), dx))(x)
        third = jax.jvp(lambda x: jax.jvp(grad, (x,), (dx,))[1], (x,), (dx,))[1]
        return grad(x), forward, reverse, third, jax.vmap(grad)(jnp.stack([x, dx]))

    ours = jax.jit(lambda: derivatives(standardise))()
    for a, b in zip(ours, jax.jit(lambda: derivatives(plain))(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ours[1], ours[2], rtol=1e-10, atol=1e-12)


def test_example_mode_sees_one_example_and_batch_mode_all() -> None:
    x = images()
    other = x.at[1:].add(jnp.arange(5.0).reshape(1, 1, 5, 1))
    for mode, equal in (("example", True), ("batch", False)):
        apply = pure(BatchNorm(mode, use_scale=False, use_bias=False)).apply  # type: ignore[arg-type]
        assert bool(jnp.allclose(apply({}, x)[0], apply({}, other)[0])) is equal


def test_parameters_on_request_named_as_flax_names_them() -> None:
    x = images()
    key = jax.random.key(0)
    flax = nn.BatchNorm(use_running_average=False).init(key, x)["params"]
    ours = pure(BatchNorm("batch")).init(key, x)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), ours) == jax.tree.map(
        lambda a: (a.shape, a.dtype), flax
    )
    assert set(pure(BatchNorm("batch", use_scale=False)).init(key, x)) == {"bias"}
    assert pure(BatchNorm("batch", use_scale=False, use_bias=False)).init(key, x) == {}


def test_bfloat16_uses_float32_statistics() -> None:
    x = (images() + 100).astype(jnp.bfloat16)
    params = pure(BatchNorm("batch")).init(jax.random.key(0), x)
    y = pure(BatchNorm("batch")).apply(params, x)
    assert y.dtype == jnp.bfloat16
    exact = pure(BatchNorm("batch")).apply(params, x.astype(float))
    np.testing.assert_allclose(y.astype(float), exact, rtol=1e-2, atol=1e-2)


def test_large_offset_does_not_cancel() -> None:
    """E[x^2] - E[x]^2 would lose the variance in float32 here."""
    x = (images() + 3000).astype(jnp.float32)
    z, _, _ = standardise(x, (0, 1, 2), 1e-3)
    exact, _, _ = plain(x.astype(float), (0, 1, 2), 1e-3)
    np.testing.assert_allclose(z, exact, atol=2e-3)


def test_wrong_mode_and_no_positions() -> None:
    with pytest.raises(InputError, match="'batch' or 'example'"):
        pure(BatchNorm("running")).init(jax.random.key(0), images())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one position"):
        pure(BatchNorm("example")).init(jax.random.key(0), jnp.ones((4, 1, 1, 3)))
    with pytest.raises(InputError, match="one position"):
        pure(BatchNorm("example")).init(jax.random.key(0), jnp.ones((4, 3)))
