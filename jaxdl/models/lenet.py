"""The small convolutional net of tutorials, after LeNet-5 (LeCun et al. 1998).

It has two 5x5 convolutions with 2x2 max-pools, then dense layers of 120, 84 and `classes` units,
with ReLU. It is the net of PyTorch's CIFAR-10 tutorial: 62,006 parameters for 32x32x3 images and
10 classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import check_images, pure
from jaxdl.types import Array, Key, Model

Initializer = nn.initializers.Initializer

# PyTorch draws both kernels and biases uniformly from +-1 / sqrt(fan_in).
_torch_kernel: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _torch_bias(fan_in: int) -> Initializer:
    def init(
        key: Key, shape: Any, dtype: DTypeLike = jnp.float32, out_sharding: Any = None
    ) -> Array:
        del out_sharding  # parameters are placed later
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class LeNet(nn.Module):
    """Convolutions of 6 and 16 channels, dense layers of 120 and 84 units; see `lenet`."""

    classes: int
    dropout: float
    torch_init: bool
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_images(x, "lenet", least=16)
        for features in (6, 16):
            x = Conv(features, 5, padding="VALID", **self._options(25 * x.shape[-1]))(x)
            # relu commutes with the pool; after the pool, it costs a quarter.
            x = nn.relu(max_pool(x))
        x = x.reshape(x.shape[0], -1)
        for features in (120, 84):
            x = nn.relu(Dense(features, **self._options(x.shape[-1]))(x))
            x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        x = Dense(self.classes, **self._options(x.shape[-1]))(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _options(self, fan_in: int) -> dict[str, Any]:
        if not self.torch_init:
            return {"dtype": self.dtype}
        return {
            "dtype": self.dtype,
            "kernel_init": _torch_kernel,
            "bias_init": _torch_bias(fan_in),
        }


def lenet(
    classes: int, *, dropout: float = 0.0, torch_init: bool = True, dtype: DTypeLike | None = None
) -> Model:
    """A net from floating-point images `[n, h, w, channels]` to logits `[n, classes]`.

    Images need at least 16x16 pixels.

    Args:
        classes: logits per image.
        dropout: rate in `[0, 1)` after both hidden dense layers; active with a key.
        torch_init: PyTorch's default, kernels and biases uniform in +-1 / sqrt(fan_in), for which
            the tutorial's recipe was tuned. False: Flax's, LeCun-normal kernels and zero biases.
        dtype: of the computation, say `jnp.bfloat16`; parameters and logits stay float32.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.lenet(classes=10), jnp.zeros((2, 32, 32, 3))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    62006
    >>> jax.eval_shape(model.apply, params, x).shape
    (2, 10)

    Raises:
        InputError: for no classes or a rate out of range; at init and apply, for integers or small
            images.
    """
    if classes < 1 or not 0 <= dropout < 1:
        raise InputError(
            f"lenet cannot have classes={classes} and dropout={dropout}. Give classes >= 1 and a"
            " dropout rate in [0, 1)"
        )
    return pure(LeNet(classes, dropout, torch_init, dtype))
