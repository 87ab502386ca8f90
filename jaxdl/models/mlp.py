"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.dense import Dense
from jaxdl.models.layers.norm import BatchNorm, Mode
from jaxdl.models.linen import pure
from jaxdl.types import Array, Model

Initializer = nn.initializers.Initializer

# The dense nets of MAML (https://arxiv.org/abs/1703.03400): the code draws from a normal cut off
# at two standard deviations, without rescaling. So does this initialiser.
maml_kernel_init: Initializer = nn.initializers.truncated_normal(0.01)

INITIALISERS: dict[str, Initializer] = {
    "lecun": nn.initializers.lecun_normal(),
    "glorot": nn.initializers.glorot_uniform(),
    "he": nn.initializers.he_normal(),
    "small": nn.initializers.normal(0.01),
}
"""Kernel initialisers by name, for command lines. The variances are 1 / fan_in (LeCun et al. 1998,
for tanh), 2 / (fan_in + fan_out) (Glorot, Bengio 2010), 2 / fan_in (He et al. 2015, for ReLU), and
0.01 ** 2.
"""


class Mlp(nn.Module):
    """Dense layers with an activation between them; see `mlp`."""

    features: Sequence[int]
    activation: Callable[[Array], Array]
    norm: Mode | None
    kernel_init: Initializer
    bias_init: Initializer
    dropout: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if not hasattr(x, "reshape"):
            raise InputError(
                f"mlp takes one array, but the inputs are a {type(x).__name__}. Write a Model of"
                " your own that joins them, or give one of them"
            )
        x = x.reshape(x.shape[0], -1)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"mlp needs floating-point inputs, not {x.dtype}. Scale pictures, to [0, 1] say;"
                " for tokens write a net with nn.Embed, and give it to jaxdl.pure"
            )
        *hidden, out = self.features
        for features in hidden:
            # A bias before a norm has no effect: the norm subtracts it and adds its own.
            x = Dense(
                features,
                use_bias=self.norm is None,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
            )(x)
            if self.norm is not None:
                x = BatchNorm(self.norm, use_scale=False, bias_init=self.bias_init)(x)
            x = self.activation(x)
            x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return Dense(out, kernel_init=self.kernel_init, bias_init=self.bias_init)(x)


def mlp(
    features: Sequence[int],
    *,
    activation: Callable[[Array], Array] = nn.relu,
    norm: Mode | None = None,
    kernel_init: Initializer = INITIALISERS["lecun"],
    bias_init: Initializer = nn.initializers.zeros,
    dropout: float = 0.0,
) -> Model:
    """A dense net: `[n, ...]` (flattened) to `[n, features[-1]]`, the last layer linear.

    The sine-wave net of MAML is `mlp((40, 40, 1), kernel_init=maml_kernel_init)`:

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> from jaxdl.models.mlp import maml_kernel_init
    >>> model, x = jaxdl.mlp((40, 40, 1), kernel_init=maml_kernel_init), jnp.zeros((10, 1))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # (1 + 1) * 40 + 41 * 40 + 41
    1761
    >>> jax.eval_shape(model.apply, params, x).shape
    (10, 1)

    Args:
        features: widths of all layers, output included.
        activation: elementwise, after every layer but the last.
        norm: "batch" puts `BatchNorm` (offset, no scale) before each activation. It uses the
            statistics of the current batch, which is transductive. None: no norm.
        kernel_init: for all kernels.
        bias_init: for all biases.
        dropout: the rate in `[0, 1)` at which activations become 0; active with a key.

    Raises:
        InputError: for no layers, a width below 1, or a rate out of range; at init and apply, for
            integer inputs.
    """
    if not features or min(features) < 1:
        raise InputError(f"mlp cannot have the widths {features!r}. Give widths of at least 1")
    if not 0 <= dropout < 1:
        raise InputError(f"mlp cannot have dropout={dropout}. Give a dropout rate in [0, 1)")
    return pure(Mlp(tuple(features), activation, norm, kernel_init, bias_init, dropout))


def mlp_omniglot(ways: int, norm: Mode | None = "batch") -> Model:
    """MAML's "no conv" net for Omniglot: 256-128-64-64 with batch norm, linear head.

    Images `[n, 28, 28, 1]` to logits `[n, ways]`. With "batch", predictions are transductive.
    """
    return mlp((256, 128, 64, 64, ways), norm=norm, kernel_init=maml_kernel_init)
