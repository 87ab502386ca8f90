"""What convolutions are for: templates that find features, the same ones everywhere."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jaxdl.models.layers.conv import conv
from jaxdl.models.layers.pooling import global_avg_pool

# Prewitt's template: the right column minus the left one.
EDGE = np.array([[-1.0, 0.0, 1.0]] * 3)


def as_kernel(template: Any) -> Any:
    return jnp.asarray(template, jnp.float32)[:, :, None, None]


def test_a_fixed_template_finds_the_edges_of_a_written_digit() -> None:
    digit = load_digits().images[0]  # a nought: the hole lies between two strokes
    x = jnp.asarray(digit, jnp.float32)[None, :, :, None]
    y = np.asarray(conv(x, as_kernel(EDGE), padding="VALID"))[0, :, :, 0]
    columns = digit[:-2] + digit[1:-1] + digit[2:]
    np.testing.assert_array_equal(y, columns[:, 2:] - columns[:, :-2])
    # Along the middle one meets ink, hole, ink, paper: rise, fall, rise, fall.
    signs = np.sign(y[2])
    assert list(signs[np.flatnonzero(np.diff(signs, prepend=0))]) == [1, -1, 1, -1]
    # The template upright finds the same edges in the digit that lies on its side.
    turned = conv(jnp.swapaxes(x, 1, 2), as_kernel(EDGE.T), padding="VALID")
    np.testing.assert_array_equal(np.asarray(turned)[0, :, :, 0], y.T)


def test_a_feature_is_found_wherever_it_is() -> None:
    """One template serves all positions: moved images give moved maps, and equal pools."""
    rng = np.random.default_rng(0)
    digit = jnp.asarray(load_digits().images[7], jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32)

    def placed(row: int, column: int) -> Any:
        return jnp.zeros((1, 24, 24, 1)).at[0, row : row + 8, column : column + 8, 0].set(digit)

    here, there = conv(placed(4, 6), w), conv(placed(10, 12), w)
    np.testing.assert_allclose(jnp.roll(here, (6, 6), (1, 2)), there, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(global_avg_pool(here), global_avg_pool(there), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(here.max((1, 2)), there.max((1, 2)), rtol=1e-5)


def test_every_position_teaches_the_shared_template() -> None:
    """The gradient of a kernel is the sum over the positions that use it."""
    x = jnp.asarray(load_digits().images[3], jnp.float32)[None, :, :, None]
    grad = jax.grad(lambda w: jnp.sum(conv(x, w, padding="VALID")))(as_kernel(EDGE))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x)[0, :, :, 0], (3, 3))
    np.testing.assert_allclose(grad[:, :, 0, 0], windows.sum((0, 1)), rtol=1e-6)
