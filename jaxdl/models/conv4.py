"""conv-4, the four-block net of few-shot learning, in the two forms of MAML.

https://arxiv.org/abs/1703.03400, section 5.2, with the initialisers of its code
(cbfinn/maml): Xavier-uniform kernels, zero biases, batch norm with an offset and no scale.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.conv import Conv
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import BatchNorm, Mode
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import check_images, pure
from jaxdl.types import Array, Model

MAML_HEAD: nn.initializers.Initializer = nn.initializers.normal(1.0)
"""The head of the Omniglot net in the MAML code: `tf.random_normal`, without the factor 0.01 of its
dense nets. The first logits have a standard deviation of about 4."""


XAVIER_HEAD: nn.initializers.Initializer = nn.initializers.xavier_uniform()
"""The head of the pooled net in the MAML code; most other codes use it for both nets."""


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, norm and relu, then a dense head; see the constructors."""

    ways: int | None
    filters: int
    pooled: bool
    norm: Mode
    head_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_images(x, "conv-4")
        for _ in range(4):
            # No bias, because the norm would subtract it again.
            x = Conv(
                self.filters,
                3,
                strides=1 if self.pooled else 2,
                use_bias=False,
                kernel_init=nn.initializers.xavier_uniform(),
            )(x)
            if self.pooled and min(x.shape[1:3]) < 2:
                raise InputError(
                    "the images are too small, because pooled conv-4 halves them four times."
                    " Give at least 16x16 pixels"
                )
            pool = max_pool if self.pooled else None
            # relu commutes with the pool, as the norm does; after the pool, it costs a quarter.
            x = nn.relu(BatchNorm(self.norm, use_scale=False, pool=pool)(x))
        x = x.reshape(x.shape[0], -1) if self.pooled else jnp.mean(x, axis=(1, 2))
        return Dense(self.ways, kernel_init=self.head_init)(x) if self.ways else x


def _conv4(
    ways: int | None, filters: int, norm: Mode, pooled: bool, head: nn.initializers.Initializer
) -> Model:
    if filters < 1 or (ways is not None and ways < 0):
        raise InputError(f"conv-4 cannot have {filters=} and {ways=}. Give filters >= 1, ways >= 0")
    return pure(Conv4(ways, filters, pooled, norm, head))


def conv4_omniglot(
    ways: int | None,
    filters: int = 64,
    norm: Mode = "batch",
    *,
    head_init: nn.initializers.Initializer = MAML_HEAD,
) -> Model:
    """MAML's Omniglot net: stride 2, no pool, mean over space, head.

    Args:
        ways: logits per image; 0 or None: no head, `[n, filters]` features.
        filters: channels of every block.
        norm: "batch": statistics of the current batch, as in MAML (transductive). "example":
            statistics of each image (inductive); the last map must have more than one position.
        head_init: for the head's kernel; `XAVIER_HEAD` learns much faster at first.

    Returns:
        Model from floating-point images `[n, h, w, channels]` to `[n, ways]`. Integer images are
        refused and not cast, because images of 0..255 would train badly without any error.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.conv4_omniglot(ways=5), jnp.zeros((2, 28, 28, 1))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    111749
    >>> (9 * 1 + 3 * 9 * 64) * 64 + 4 * 64 + 64 * 5 + 5  # kernels, offsets, head
    111749
    >>> jax.eval_shape(model.apply, params, x).shape
    (2, 5)

    Raises:
        InputError: for negative ways or no filters; at init and apply, for integers or an unknown
            norm.
    """
    return _conv4(ways, filters, norm, False, head_init)


def conv4_pooled(ways: int | None, filters: int = 32, norm: Mode = "batch") -> Model:
    """MAML's mini-ImageNet net, also for CIFAR: stride 1, 2x2 max-pool, flatten, Xavier head.

    Arguments, result and errors are as in `conv4_omniglot`, but features are flattened: 32x32
    images give `2 * 2 * filters`, 84x84 images give `5 * 5 * filters`. Images need at least 16x16.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> embedding, x = jaxdl.conv4_pooled(ways=None), jnp.zeros((2, 84, 84, 3))
    >>> params = jax.eval_shape(embedding.init, jax.random.key(0), x)
    >>> jax.eval_shape(embedding.apply, params, x).shape  # 5 * 5 * 32 features
    (2, 800)
    """
    return _conv4(ways, filters, norm, True, XAVIER_HEAD)
