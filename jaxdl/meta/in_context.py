"""Learners that read the support set: all that they learn in a task are a net's activations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.losses import counted, without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.head import flat_features, flat_width
from jaxdl.models.context import Context
from jaxdl.types import (
    Array,
    Batch,
    Embedding,
    Key,
    LossFn,
    MetaLearner,
    Model,
    Params,
    PyTree,
    Weight,
)


class Reader(NamedTuple):
    """Parameters of the features, and of the net that reads them."""

    features: Params
    net: Params


class Read(NamedTuple):
    """The adapted state: the parameters, and the support set as tokens with their weights."""

    params: Reader
    tokens: Float[Array, "n token"]
    weight: Float[Array, " n"]


def in_context(
    features: Embedding, net: Model, loss: LossFn, *, ways: int, inner_dropout: bool = False
) -> MetaLearner:
    """A learner whose `net` reads a `Context` and answers `[m, ways]`.

    Features and net are trained together, by the loss of the queries. Labels are classes, or
    numbers `[n, ways]` of a regression. There are no inner steps, so `adapt` returns the same for
    all `steps`.

    Raises:
        InputError: if `features` is no model; in `adapt`, if numbers are not `[n, ways]`.
    """
    check_model(features)

    def init(key: Key, x: PyTree) -> Reader:
        features_key, net_key = jax.random.split(key)
        params = features.init(features_key, x)
        tokens = jnp.zeros((2, flat_width(features, params, x) + ways + 1))
        return Reader(params, net.init(net_key, Context(tokens, jnp.ones(2), tokens)))

    def adapt(key: Key, params: Reader, support: Batch, steps: int | None = None) -> Read:
        del steps  # the net reads the support set once
        x, weight = without_void(support.x, support.weight), support.weight
        masks = key if inner_dropout else None
        hidden = flat_features(features, params.features, x, key=masks, weight=weight)
        dtype = hidden.dtype
        labels, ones = targets(support, ways).astype(dtype), jnp.ones((len(hidden), 1), dtype)
        counts = jnp.ones(len(hidden), dtype) if weight is None else weight.astype(dtype)
        (tokens,) = counted(weight, jnp.concatenate([hidden, labels, ones], axis=1))
        return Read(params, tokens, counts)

    def predict(
        adapted: Read, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "m ways"]:
        hidden = flat_features(features, adapted.params.features, x, key=key, weight=weight)
        zeros = jnp.zeros((len(hidden), ways + 1), hidden.dtype)
        queries = jnp.concatenate([hidden, zeros], axis=1)
        return net.apply(adapted.params.net, Context(adapted.tokens, adapted.weight, queries))

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))


def targets(support: Batch, ways: int) -> Float[Array, "n ways"]:
    """Targets as numbers: classes one-hot, and numbers as they are, 0 where they do not count.

    >>> targets(Batch(jnp.ones((2, 1)), jnp.array([2, 0])), ways=3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    Raises:
        InputError: if numbers are not `[n, ways]`.
    """
    if jnp.issubdtype(support.y.dtype, jnp.integer):
        return jax.nn.one_hot(support.y, ways)
    if support.y.ndim != 2 or support.y.shape[1] != ways:
        raise InputError(
            f"targets are {list(support.y.shape)}, and the learner was made for `ways={ways}`"
            " numbers each. Make it with as many ways as a target has numbers"
        )
    return counted(support.weight, support.y)[0]
