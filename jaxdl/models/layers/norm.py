"""Batch norm in two kinds.

`BatchNorm` uses the statistics of the batch at hand alone, for few-shot learners.
`RunningBatchNorm` keeps running averages, so that it can evaluate single examples, for supervised
nets.
"""

from collections.abc import Callable, Sequence
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

    Derivatives need c and r alone. So c and r are outputs, and the tangent rule is written in them.
    For the next order, the rule calls `standardise` again. In the transpose of the rule, both
    reductions read the incoming cotangent directly. This saves two passes over memory, compared
    with the derivative of the formula.
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
    # c sums to zero, so the shift drops out of mean(c * dc).
    slope = r * r * r * jnp.mean(c * dx, axes, keepdims=True)
    return (z, c, r), (r * dx - r * shift - c * slope, dx - shift, -slope)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def moments(
    x: Float[Array, "*shape"], axes: tuple[int, ...], epsilon: float
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """`(mean, r)` over `axes`, which stay with length 1: `r = 1 / sqrt(variance + epsilon)`.

    The derivative of each order reads x once, as that of `standardise` does.
    """
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, lax.rsqrt(jnp.mean(jnp.square(x - mean), axes, keepdims=True) + epsilon)


@moments.defjvp
def _moments_jvp(
    axes: tuple[int, ...], epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    (x,), (dx,) = primals, tangents
    mean, r = moments(x, axes, epsilon)
    slope = r * r * r * jnp.mean((x - mean) * dx, axes, keepdims=True)
    return (mean, r), (jnp.mean(dx, axes, keepdims=True), -slope)


def weighted_standardise(
    x: Array, weight: Array, epsilon: float, axis_name: str | None = None
) -> tuple[
    Float[Array, " n *space channels"],
    Float[Array, " channels"],
    Float[Array, " channels"],
    Float[Array, "1"],
    Float[Array, "1"],
]:
    """`(z, mean, variance, count, values)` over all axes but the last; `weight` `[n]` is of rows.

    A row of weight 2 counts as two rows. A row of weight 0 does not count, whatever its values are,
    but is normalised as the others are. `mean` and `variance` are `[channels]`. `count` is what the
    values of a channel weigh together, and `values` how many of them weigh anything. With
    `axis_name`, the sums are over the devices of that axis, too.

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
    # A second pass over the values, because E[x^2] - E[x]^2 cancels in float32.
    variance = total(w * jnp.square(jnp.where(w == 0, 0, c))) / least
    values = total(jnp.broadcast_to(w > 0, (*x.shape[:-1], 1)).astype(x.dtype))
    return c * _along(lax.rsqrt(variance + epsilon), x), mean, variance, count, values


class BatchNorm(nn.Module):
    """Normalises each channel (the last axis) by statistics of the data at hand.

    It has no running averages, so it is a pure function of its parameters and its input. `mode`
    selects the statistics:

    - "batch": mean and variance over all examples (and space) of the current batch. MAML does this,
      also at test time. It is *transductive*: a prediction depends on the other queries of the
      batch. Say so beside every result.
    - "example": each example's own mean and variance over space (instance norm). It is inductive: a
      prediction does not depend on other queries. It needs more than one spatial position.

    With "batch", `weight` says how much each example counts in the statistics. Padding of weight 0
    does not count, and changes nothing for other examples. `pure` passes the weights of a batch to
    every norm in a net.

    Parameters are `scale` and `bias` `[channels]`, with `use_scale` and `use_bias`. `epsilon` is
    that of `tf.contrib.layers.batch_norm`, which the MAML code uses (with `use_scale=False`).
    Statistics are computed in float32 at least.

    `pool` is a max-pool that follows the norm. The norm without a scale is an increasing function
    of each channel, so it commutes with the pool: here x is pooled first, and then normalised by
    the statistics of all of x. With 2x2 blocks this normalises a quarter of the values.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> net = nn.Sequential([nn.Dense(8), jaxdl.BatchNorm("batch"), nn.relu, nn.Dense(1)])
    >>> model = jaxdl.pure(net)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((4, 3)))
    >>> jax.tree.map(jnp.shape, params["layers_1"])
    {'bias': (8,), 'scale': (8,)}

    Raises:
        InputError: if the mode is unknown; if a norm with a scale has a `pool`; if "example" has
            one position only; if "batch" gets a single example (but not at `init`). A single
            example would be normalised by itself, and in a layer without positions all examples
            would get the same values.
    """

    takes_weight: ClassVar[bool] = True

    mode: Mode
    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-3
    param_dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    pool: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(
        self, x: Shaped[Array, " n *space channels"], weight: Array | None = None
    ) -> Shaped[Array, " n *pooled channels"]:
        """`[n, ..., channels]`, and weights `[n]`, to the same shape, pooled, and dtype.

        Integers become float32.
        """
        axes, exact = self._axes(x.shape), x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.mode == "batch" and len(x) == 1 and not self.is_initializing():
            raise InputError(
                "a net with batch norm by the statistics of the batch at hand got a single example,"
                " which it would normalise by itself: give several at once, or train again with the"
                " statistics of the support set (jaxdl.by_support_statistics, --norm support) or of"
                " each example (norm='example', --norm example)"
            )
        if self.pool is not None and self.use_scale:
            raise InputError(
                "BatchNorm with `pool=` has a scale, which may be negative, and then the pool does"
                " not commute with the norm. Give use_scale=False, or pool after the norm"
            )
        if weight is not None and self.mode == "batch":
            z, mean, variance, *_ = weighted_standardise(exact, weight, self.epsilon)
            if self.pool is not None:
                r = _along(lax.rsqrt(variance + self.epsilon), x)
                z = (self.pool(exact) - _along(mean, x)) * r
        elif self.pool is not None:
            mean, r = moments(exact, axes, self.epsilon)
            z = (self.pool(exact) - mean) * r
        else:
            z, _, _ = standardise(exact, axes, self.epsilon)
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, shape[-1:], self.param_dtype)
            z = z * scale.reshape(shape)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)
            z = z + bias.reshape(shape)
        return z.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else z

    def _axes(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.mode not in get_args(Mode):
            raise InputError(
                f"the mode of BatchNorm is 'batch' or 'example', not {self.mode!r}: choose one"
            )
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
      all examples and positions. It moves the running averages towards them.
    - "eval" normalises by the running averages. A prediction depends on its own input alone.

    With `axis_name`, the mean, and then the squared distance from it, are averaged over the devices
    of that pmap axis *inside* the forward pass. So n devices normalise as one device with the whole
    batch. A later average of variances would ignore the differences between the devices' means.

    In "train", `weight` says how much each example counts, as in `BatchNorm`. A batch in which all
    weights are 0 does not change the running averages.

    An average becomes `momentum * average + (1 - momentum) * batch`. The variance of the batch is
    multiplied by n / (n - 1) for it, as in PyTorch (whose `momentum` is one minus this one). n is
    the sum of the weights, or the number of values that have one if that is more. The averages are
    float32.

    Parameters are `scale` and `bias` `[channels]`. Statistics are `mean` and `var` `[channels]`.
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
        """`[n, ..., channels]`, and weights `[n]`, to the same shape and dtype.

        Integers become float32.
        """
        if mode not in get_args(NormMode):
            raise InputError(
                f"the mode of RunningBatchNorm is 'train' or 'eval', not {mode!r}: choose one"
            )
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
        return z.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else z

    def _by_the_batch(
        self, x: Float[Array, "*shape"], mean: Any, var: Any, weight: Array | None
    ) -> Float[Array, "*shape"]:
        axes = tuple(range(x.ndim - 1))
        count: Any = x.size // x.shape[-1]
        keep: Any = self.momentum
        if weight is not None:
            z, *found, count, values = weighted_standardise(x, weight, self.epsilon, self.axis_name)
            keep = jnp.where(count > 0, keep, 1)
            # Weights that are shares of an example make no smaller sample.
            count = jnp.maximum(count, values)
        elif self.axis_name is None:
            z, centred, _ = standardise(x, axes, self.epsilon)
            found = [jnp.mean(x, axes), jnp.mean(jnp.square(centred), axes)]
        else:
            count = count * lax.axis_size(self.axis_name)
            # Two averages over devices. E[x^2] - E[x]^2 would need one, but cancels in float32.
            first = lax.pmean(jnp.mean(x, axes), self.axis_name)
            centred = x - _along(first, x)
            found = [first, lax.pmean(jnp.mean(jnp.square(centred), axes), self.axis_name)]
            z = centred * _along(lax.rsqrt(found[1] + self.epsilon), x)
        unbiased = found[1] * (count / (jnp.maximum if weight is not None else max)(count - 1, 1))
        for average, new in ((mean, found[0]), (var, unbiased)):
            moved = keep * average.value + (1 - keep) * lax.stop_gradient(new)
            average.value = moved.astype(average.value.dtype)
        return z


def _along(
    vector: Float[Array, " channels"], x: Shaped[Array, "... channels"]
) -> Float[Array, "... channels"]:
    """`[channels]` as `[1, ..., 1, channels]`, with the rank of x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def check_rows(x: Array, weight: Array) -> None:
    """Validates that a batch norm gets one weight per row of its input.

    Raises:
        InputError: if not.
    """
    if weight.shape != x.shape[:1]:
        raise InputError(
            f"batch norm got weights {list(weight.shape)} beside an input {list(x.shape)}: give it"
            " one weight per row. A net that moves its batch axis must pass them itself"
        )
