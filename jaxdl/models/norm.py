"""Batch norm without running averages: a pure function of its parameters and its input."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxdl.errors import InputError
from jaxdl.types import Array

Mode = Literal["batch", "example"]


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """`(z, c, r)`: `c = x - mean`, `r = 1 / sqrt(variance + epsilon)`, `z = c * r` over `axes`.

    All that derivatives need is c and r, so they are outputs and the tangent rule is written in
    them; it calls itself for the next order. In its transpose both reductions read the incoming
    cotangent directly, which spares two passes over memory against differentiating the formula.
    """
    c = x - jnp.mean(x, axes, keepdims=True)
    r = lax.rsqrt(jnp.mean(jnp.square(c), axes, keepdims=True) + epsilon)
    return c * r, c, r


@standardise.defjvp
def _standardise_jvp(
    axes: tuple[int, ...], epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    (x,), (dx,) = primals, tangents
    z, c, r = standardise(x, axes, epsilon)
    shift = jnp.mean(dx, axes, keepdims=True)
    # c sums to zero, so that the shift drops out of mean(c * dc).
    slope = r * r * r * jnp.mean(c * dx, axes, keepdims=True)
    return (z, c, r), (r * dx - r * shift - c * slope, dx - shift, -slope)


class BatchNorm(nn.Module):
    """Normalises each channel (the last axis) by statistics of the data at hand.

    No running averages, so it is a pure function of its parameters; `mode` says whose statistics:

    - "batch": mean and variance over all examples (and space) of the batch it is called with.
      This is what MAML does, also at test time, and it is *transductive*: a prediction depends
      on which other queries stand in the same batch. Say so beside every number it produced.
    - "example": each example's own mean and variance over space (instance norm). Inductive: no
      query sees another. Needs spatial axes with more than one position.

    Parameters: `scale` and `bias`, each `[channels]`, where asked for. `epsilon` is that of
    `tf.contrib.layers.batch_norm`, which the MAML code uses (with `use_scale=False`). Statistics
    are computed in float32 at least.

    Raises:
        InputError: an unknown mode, or "example" without positions to average over.
    """

    mode: Mode
    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-3
    param_dtype: Any = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[n, ..., channels]` to the same shape and dtype."""
        z, _, _ = standardise(
            x.astype(jnp.promote_types(x.dtype, jnp.float32)), self._axes(x.shape), self.epsilon
        )
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, shape[-1:], self.param_dtype)
            z = z * scale.reshape(shape)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)
            z = z + bias.reshape(shape)
        return z.astype(x.dtype)

    def _axes(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.mode not in get_args(Mode):
            raise InputError(f"the mode of BatchNorm is 'batch' or 'example', not {self.mode!r}")
        if self.mode == "batch":
            return tuple(range(len(shape) - 1))
        axes = tuple(range(1, len(shape) - 1))
        if all(shape[a] == 1 for a in axes):
            raise InputError(
                "BatchNorm with mode 'example' averages over positions within an example, and"
                f" an input of shape {tuple(shape)} has one position only; use mode 'batch'"
            )
        return axes
