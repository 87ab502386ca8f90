"""Neural processes: what CNP, CANP, ConvCNP, TNP-D, NP and ANP share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model, of_loss
from jaxdl.losses import Normal, without_void
from jaxdl.meta.base import QueryGrad, after_adaptation
from jaxdl.meta.head import flat_features, flat_width
from jaxdl.meta.in_context import Reader, targets
from jaxdl.models.process import Points, ProcessNet, as_normal
from jaxdl.types import (
    Array,
    Batch,
    Count,
    Embedding,
    Episode,
    InitFn,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Params,
    PyTree,
    Scalar,
    Weight,
)


class Encoded(NamedTuple):
    """The adapted state: the parameters, and the code of the support set."""

    params: Reader
    code: PyTree


def conditional(
    features: Embedding,
    net: ProcessNet,
    loss: LossFn,
    *,
    ways: int,
    least_scale: float,
    whole: bool = True,
) -> MetaLearner:
    """A learner that encodes the support set once and predicts a `Normal` of `ways` numbers.

    Features and net are trained together. There are no inner steps, so `adapt` returns the same for
    all `steps`, and it draws nothing.

    Args:
        features: of the inputs. Its dropout is on for queries in training.
        loss: of a `Normal`, such as `gaussian_nll`.
        least_scale: the least standard deviation of a prediction, see `as_normal`.
        whole: the loss of training is that of support set and queries together, as in CNP. False:
            that of queries alone.

    Raises:
        InputError: if `features` is no model; in `adapt`, if targets are not `[n, ways]`.
    """
    check_model(features)

    def adapt(key: Key, params: Reader, support: Batch, steps: int | None = None) -> Encoded:
        del key, steps  # the net reads the support set once, and nothing is drawn
        return Encoded(params, net.encode(params.net, points(features, params, support, ways)))

    def predict(
        adapted: Encoded, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Normal:
        params, code = adapted
        hidden = flat_features(features, params.features, x, key=key, weight=weight)
        return as_normal(net.decode(params.net, code, hidden), least_scale)

    value = after_adaptation(adapt, predict, loss)

    def of_all(
        params: Params, key: Key, episode: Episode, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        return value(params, key, with_support(episode) if whole else episode, step)

    return MetaLearner(initial(features, net, ways), adapt, predict, QueryGrad(of_loss(of_all)))


def initial(features: Embedding, net: ProcessNet, ways: int) -> InitFn:
    """The `init` of a neural process: parameters of the features and of the net."""

    def init(key: Key, x: PyTree) -> Reader:
        features_key, net_key = jax.random.split(key)
        params = features.init(features_key, x)
        zeros = jnp.zeros((2, flat_width(features, params, x))), jnp.zeros((2, ways))
        return Reader(params, net.init(net_key, Points(*zeros, jnp.ones(2))))

    return init


def points(
    features: Embedding, params: Reader, batch: Batch, ways: int, *, key: Key | None = None
) -> Points:
    """The examples of a batch as a net of `jaxdl.models.process` takes them.

    Raises:
        InputError: if targets are not `[n, ways]`.
    """
    if jnp.issubdtype(batch.y.dtype, jnp.integer):
        raise InputError(
            f"the targets are {batch.y.dtype}, and a neural process predicts numbers. Convert them"
            " with y.astype('float32'), or choose another learner for classes"
        )
    x, weight = without_void(batch.x, batch.weight), batch.weight
    hidden = flat_features(features, params.features, x, key=key, weight=weight)
    y = targets(batch, ways).astype(hidden.dtype)
    counts = jnp.ones(len(y), y.dtype) if weight is None else weight.astype(y.dtype)
    return Points(hidden, y, counts)


def with_support(episode: Episode) -> Episode:
    """The episode whose queries are its support set and then its queries.

    >>> one = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    >>> with_support(Episode(one, one._replace(weight=jnp.zeros(1)))).query.weight.tolist()
    [1.0, 0.0]
    """
    support, query = episode

    def both(one: Array, other: Array) -> Array:
        return jnp.concatenate([one, other])

    x, y = (jax.tree.map(both, *pair) for pair in zip(support[:2], query[:2], strict=True))
    if support.weight is None and query.weight is None:
        return Episode(support, Batch(x, y))
    return Episode(support, Batch(x, y, both(*(_counts(part) for part in episode))))


def _counts(batch: Batch) -> Float[Array, " n"]:
    if batch.weight is None:
        return jnp.ones(len(batch.y))
    return batch.weight.astype("float32")
