"""Pooling against `lax.reduce_window` and closed forms, in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.pooling import avg_pool, global_avg_pool, max_pool

library: dict[Any, Any] = {max_pool: nn.max_pool, avg_pool: nn.avg_pool}

# (image [n, h, w, c], window, strides, padding)
CASES: list[Any] = [
    ((2, 4, 6, 3), (2, 2), (2, 2), "VALID"),
    ((1, 5, 7, 2), (2, 2), (2, 2), "VALID"),
    ((2, 7, 8, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 8, 8, 1), (3, 3), (2, 2), "SAME"),
    ((1, 6, 5, 2), (3, 2), (1, 3), ((2, 0), (0, 1))),
    ((1, 7, 9, 1), (2, 1), (3, 2), "VALID"),
    ((1, 4, 5, 3), (4, 5), (4, 5), "VALID"),
]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_the_librarys_even_with_ties(pool: Any, case: Any) -> None:
    shape, window, strides, padding = case
    rng = np.random.default_rng(0)
    # Negative values, so that a padding of zeros would win, and many ties.
    x = jnp.asarray(rng.integers(-5, -2, size=shape).astype(float))

    def ours(x: Any) -> Any:
        return pool(x, window, strides=strides, padding=padding)

    def theirs(x: Any) -> Any:
        return library[pool](x, window, strides, padding)

    ct = jnp.asarray(rng.normal(size=jax.eval_shape(theirs, x).shape))

    @jax.jit
    def both(x: Any, ct: Any) -> Any:
        pairs = [jax.vjp(f, x) for f in (ours, theirs)]
        return [(y, pull(ct)[0]) for y, pull in pairs]

    (y, grad), (expected, expected_grad) = both(x, ct)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("padding", ["VALID", 1])
@pytest.mark.parametrize("size", [2, 3])
def test_second_derivative_of_the_maximum(size: int, padding: Any) -> None:
    """The Hessian of the sum of cubes is 6 max on the diagonal, once a window that it wins."""
    x = jnp.asarray(np.random.default_rng(size).normal(size=(1, 5, 5, 2)))

    def cubes(x: Any) -> Any:
        return jnp.sum(max_pool(x, size, strides=2, padding=padding) ** 3)

    hessian = jax.jit(jax.hessian(cubes))(x).reshape(50, 50)
    pad = 0 if padding == "VALID" else padding
    padded = np.pad(np.asarray(x[0]), ((pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    places = np.pad(np.arange(50).reshape(5, 5, 2), ((pad, pad), (pad, pad), (0, 0)))
    expected = np.zeros(50)
    for i in range(0, padded.shape[0] - size + 1, 2):
        for j in range(0, padded.shape[1] - size + 1, 2):
            for c in range(2):
                window = padded[i : i + size, j : j + size, c].ravel()
                place = places[i : i + size, j : j + size, c].ravel()[window.argmax()]
                expected[place] += 6 * window.max()
    np.testing.assert_allclose(hessian, np.diag(expected), atol=1e-12)


def test_not_a_number_wins() -> None:
    for i in range(4):
        broken = jnp.ones((1, 2, 2, 1)).at[0, i // 2, i % 2, 0].set(jnp.nan)
        assert np.isnan(max_pool(broken)).all()


def test_no_scatter_and_no_reduce_window_in_the_gradient() -> None:
    def slope(x: Any) -> Any:
        pool = max_pool(x, 3, strides=2, padding=1)
        return jnp.sum(pool**2)

    x = jnp.ones((2, 8, 8, 3))
    text = str(jax.make_jaxpr(lambda x: jax.jvp(jax.grad(slope), (x,), (x,)))(x))
    assert "scatter" not in text
    assert "reduce_window" not in text


def test_average_over_all_positions() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5, 2)))
    np.testing.assert_allclose(global_avg_pool(x), np.asarray(x).mean((1, 2)), rtol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_dtype_stays(dtype: Any) -> None:
    x = jnp.ones((1, 4, 4, 1), dtype)
    for y in (max_pool(x, 3, padding=1), avg_pool(x, 3, padding=1), global_avg_pool(x)):
        assert y.dtype == dtype


@pytest.mark.parametrize(
    ("x", "options", "sentence"),
    [
        (jnp.ones((1, 4, 4, 1), jnp.uint8), {}, "floating-point images"),
        (jnp.ones((4, 4, 1)), {}, "floating-point images"),
        (jnp.ones((1, 1, 4, 1)), {}, "does not fit"),
        (jnp.ones((1, 4, 4, 1)), {"window": 0}, "window must be"),
        (jnp.ones((1, 4, 4, 1)), {"strides": 0}, "strides must be"),
        (jnp.ones((1, 4, 4, 1)), {"padding": 2}, "nothing but padding"),
        (jnp.ones((1, 4, 4, 1)), {"padding": "REFLECT"}, "padding must be"),
    ],
)
def test_wrong_arguments(x: Any, options: Any, sentence: str) -> None:
    for pool in (max_pool, avg_pool):
        with pytest.raises(InputError, match=sentence):
            pool(x, **options)
