"""Batch norm in two kinds, for the two ways to judge a net.

`BatchNorm` knows only the data at hand, as few-shot learners want it; `RunningBatchNorm` keeps
running averages for the time when single examples come, as supervised nets want it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array, NormMode

Mode = Literal["batch", "example"]


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardise(
    x: Float[Array, "*shape"], axes: tuple[int, ...], epsilon: float
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "..."]]:
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


def weighted_standardise(
    x: Array, weight: Array, epsilon: float, axis_name: str | None = None
) -> tuple[
    Float[Array, " n *space channels"],
    Float[Array, " channels"],
    Float[Array, " channels"],
    Float[Array, "1"],
]:
    """`(z, mean, variance, count)` over all axes but the last, rows of x counted `weight` `[n]`
    times: a row of weight 2 counts as two rows, and one of weight 0 does not, whatever is in it.

    `mean` and `variance` are `[channels]`; `count` is how many values each is of. Rows of weight 0
    are normalised as the others are. With `axis_name` the sums are over the devices of that axis.

    Raises:
        InputError: if `weight` is not `[n]`.
    """
    check_rows(x, weight)

    def total(values: Array) -> Array:
        sums = jnp.sum(values, axis=tuple(range(x.ndim - 1)))
        return sums if axis_name is None else lax.psum(sums, axis_name)

    w = weight.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
    count = total(jnp.broadcast_to(w, (*x.shape[:-1], 1)))
    least = jnp.maximum(count, np.finfo(x.dtype).tiny)
    mean = total(w * jnp.where(w == 0, 0, x)) / least
    c = x - _along(mean, x)
    # Twice through the values, for E[x^2] - E[x]^2 cancels in float32.
    variance = total(w * jnp.square(jnp.where(w == 0, 0, c))) / least
    return c * _along(lax.rsqrt(variance + epsilon), x), mean, variance, count


class BatchNorm(nn.Module):
    """Normalises each channel (the last axis) by statistics of the data at hand.

    No running averages, so it is a pure function of its parameters; `mode` says whose statistics:

    - "batch": mean and variance over all examples (and space) of the batch it is called with.
      This is what MAML does, also at test time, and it is *transductive*: a prediction depends
      on which other queries stand in the same batch. Say so beside every number it produced.
    - "example": each example's own mean and variance over space (instance norm). Inductive: no
      query sees another. Needs spatial axes with more than one position.

    With "batch", `weight` says how much each example counts in the statistics: padding of weight 0
    does not count, and changes nothing for the others. `pure` hands the weights of a batch down to
    every norm in a net.

    Parameters: `scale` and `bias`, each `[channels]`, where asked for. `epsilon` is that of
    `tf.contrib.layers.batch_norm`, which the MAML code uses (with `use_scale=False`). Statistics
    are computed in float32 at least.

    Raises:
        InputError: an unknown mode; "example" without positions to average over; "batch" with a
            single example, unless at `init`: it would be normalised by itself, and in a layer
            without positions every example would become the same numbers.
    """

    takes_weight: ClassVar[bool] = True

    mode: Mode
    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-3
    param_dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, " n *space channels"], weight: Array | None = None
    ) -> Shaped[Array, " n *space channels"]:
        """`[n, ..., channels]`, and weights `[n]`, to the same shape and dtype."""
        axes, exact = self._axes(x.shape), x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.mode == "batch" and len(x) == 1 and not self.is_initializing():
            raise InputError(
                "a net with batch norm by the statistics of the batch at hand got a single example,"
                " which it would normalise by itself: give several at once, or let learner and net"
                " use the statistics of the support set (norm='support') or of each example"
                " (norm='example')"
            )
        if weight is None or self.mode == "example":
            z, _, _ = standardise(exact, axes, self.epsilon)
        else:
            z = weighted_standardise(exact, weight, self.epsilon)[0]
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
                f" an input of shape {tuple(shape)} has one position only;"
                " choose norm='batch' or 'support'"
            )
        return axes


class RunningBatchNorm(nn.Module):
    """Batch norm with running averages (Ioffe, Szegedy 2015, arXiv:1502.03167).

    - "train" normalises each channel (the last axis) by mean and variance of the batch, over
      all examples and positions, and moves the running averages towards them.
    - "eval" normalises by the running averages: a prediction depends on its own input alone.

    With `axis_name` the mean, and then the squared distance from it, are averaged over the devices
    of that pmap axis *inside* the forward pass, so that n devices normalise as one with the whole
    batch; variances averaged afterwards would leave out how the devices' means differ.

    In "train", `weight` says how much each example counts, as in `BatchNorm`. A batch in which all
    weights are 0 leaves the running averages as they are.

    An average becomes `momentum * average + (1 - momentum) * batch`, with n / (n - 1) times the
    batch's variance, as in PyTorch (whose `momentum` is one minus this one). All of it is float32
    at least.

    Parameters: `scale` and `bias` `[channels]`; statistics: `mean` and `var` `[channels]`.
    """

    takes_weight: ClassVar[bool] = True

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    axis_name: str | None = None
    param_dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, " n *space channels"], mode: NormMode, weight: Array | None = None
    ) -> Shaped[Array, " n *space channels"]:
        """`[n, ..., channels]`, and weights `[n]`, to the same shape and dtype."""
        if mode not in get_args(NormMode):
            raise InputError(f"the mode of RunningBatchNorm is 'train' or 'eval', not {mode!r}")
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = bias = None
        if self.use_scale:
            scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if mode == "eval":
            z = (exact - _along(mean.value, x)) * _along(lax.rsqrt(var.value + self.epsilon), x)
        else:
            z = self._by_the_batch(exact, mean, var, weight)
        if scale is not None:
            z = z * _along(scale, x)
        if bias is not None:
            z = z + _along(bias, x)
        return z.astype(x.dtype)

    def _by_the_batch(
        self, x: Float[Array, "*shape"], mean: Any, var: Any, weight: Array | None
    ) -> Float[Array, "*shape"]:
        axes = tuple(range(x.ndim - 1))
        count: Any = x.size // x.shape[-1]
        keep: Any = self.momentum
        if weight is not None:
            z, *found, count = weighted_standardise(x, weight, self.epsilon, self.axis_name)
            keep = jnp.where(count > 0, keep, 1)
        elif self.axis_name is None:
            z, centred, _ = standardise(x, axes, self.epsilon)
            found = [jnp.mean(x, axes), jnp.mean(jnp.square(centred), axes)]
        else:
            count = count * lax.axis_size(self.axis_name)
            # Twice over the wire: E[x^2] - E[x]^2 would need once, and cancels in float32.
            first = lax.pmean(jnp.mean(x, axes), self.axis_name)
            centred = x - _along(first, x)
            found = [first, lax.pmean(jnp.mean(jnp.square(centred), axes), self.axis_name)]
            z = centred * _along(lax.rsqrt(found[1] + self.epsilon), x)
        unbiased = found[1] * (count / (jnp.maximum if weight is not None else max)(count - 1, 1))
        mean.value = keep * mean.value + (1 - keep) * lax.stop_gradient(found[0])
        var.value = keep * var.value + (1 - keep) * lax.stop_gradient(unbiased)
        return z


def _along(
    vector: Float[Array, " channels"], x: Shaped[Array, "... channels"]
) -> Float[Array, "... channels"]:
    """`[channels]` with the rank of x, whose last axis it is."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def check_rows(x: Array, weight: Array) -> None:
    """Refuses weights that are not one per row of the input of a batch norm.

    Raises:
        InputError: with both shapes.
    """
    if weight.shape != x.shape[:1]:
        raise InputError(
            f"batch norm got weights {list(weight.shape)} beside an input {list(x.shape)}: it takes"
            " one weight per row; a net that moves its batch axis gives it weights or a mask itself"
        )
