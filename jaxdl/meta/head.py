"""A linear head on an embedding: the net of learners that treat features and head apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.grads import check_model
from jaxdl.types import Array, Embedding, Key, Model, Params, PyTree, Weight


class Headed(NamedTuple):
    """Parameters of the features and of a linear head, kernel `[width, outputs]`."""

    features: Params
    kernel: Float[Array, "width outputs"]
    bias: Float[Array, " outputs"]


def with_head(features: Embedding, outputs: int) -> Model:
    """The net with a linear head on the flat features. Its parameters are a `Headed`.

    The kernel starts as LeCun's, and the bias at zero.

    Raises:
        InputError: if `features` is no model.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> net = with_head(jaxdl.mlp((8,)), outputs=3)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params.kernel.shape, net.apply(params, jnp.ones((5, 4))).shape
    ((8, 3), (5, 3))
    """
    check_model(features)

    def init(key: Key, x: PyTree) -> Headed:
        params = features.init(key, x)
        width = flat_width(features, params, x)
        kernel = jax.nn.initializers.lecun_normal()(key, (width, outputs))
        return Headed(params, kernel, jnp.zeros(outputs))

    def apply(
        params: Headed, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n outputs"]:
        hidden = flat_features(features, params.features, x, key=key, weight=weight)
        return hidden @ params.kernel + params.bias[None]

    return Model(init, apply)


def flat_features(
    features: Embedding,
    params: Params,
    x: PyTree,
    *,
    key: Key | None = None,
    weight: Weight | None = None,
) -> Float[Array, "n width"]:
    """The outputs of an embedding as vectors."""
    hidden = features.apply(params, x, key=key, weight=weight)
    return hidden.reshape(hidden.shape[0], -1)


def flat_width(features: Embedding, params: Params, x: PyTree) -> int:
    """The length of these vectors, for inputs that look like the batch x."""
    # Two examples, because batch norm raises an error for a batch of one.
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), x)
    two: Array = jax.eval_shape(lambda: flat_features(features, params, twice))
    return two.shape[1]
