"""Neural processes with a latent variable, which all queries of a task share: NP and ANP."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import check_model, of_loss
from jaxdl.losses import Normal
from jaxdl.meta.base import QueryGrad
from jaxdl.meta.head import flat_features
from jaxdl.meta.in_context import Reader
from jaxdl.meta.neural_process import Encoded, initial, points, with_support
from jaxdl.meta.queries import query_loss
from jaxdl.models.process import ProcessNet, as_normal
from jaxdl.types import (
    Array,
    Batch,
    Count,
    Embedding,
    Episode,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Params,
    PyTree,
    Scalar,
    Weight,
)


def latent(
    features: Embedding,
    net: ProcessNet,
    loss: LossFn,
    *,
    ways: int,
    least_scale: float,
    samples: int,
) -> MetaLearner:
    """A learner that draws `samples` functions in `adapt` and predicts a `Normal` of each.

    A prediction is `[n, ways, samples]`. The samples are from the prior given the support set, so
    `adapt` depends on its key. There are no inner steps: it is the same for all `steps`.

    `grad` is that of the negative evidence lower bound per point, with one sample of the posterior
    given support set and queries. Its metrics are those of the loss for that sample, `loss` itself,
    which is the bound, and `kl`, the divergence of posterior and prior per point.

    Args:
        net: of codes whose field `whole` is a `Normal`, see `process_paths`.
        loss: of a `Normal`, such as `gaussian_nll`; the mean over points of the negative
            log-likelihood.

    Raises:
        InputError: if `features` is no model, or there are no samples; in `adapt`, if targets are
            not `[n, ways]`.
    """
    check_model(features)
    if samples < 1:
        raise InputError(f"`samples={samples}`: choose at least 1")

    def encode(params: Reader, batch: Batch) -> PyTree:
        return net.encode(params.net, points(features, params, batch, ways))

    def adapt(key: Key, params: Reader, support: Batch, steps: int | None = None) -> Encoded:
        del steps  # the net reads the support set once
        code = encode(params, support)
        return Encoded(params, code._replace(whole=drawn(key, code.whole, samples)))

    def predict(
        adapted: Encoded, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Normal:
        params, code = adapted
        hidden = flat_features(features, params.features, x, key=key, weight=weight)

        def of_sample(whole: Float[Array, " width"]) -> Float[Array, "m outputs"]:
            return net.decode(params.net, code._replace(whole=whole), hidden)

        return as_normal(jax.vmap(of_sample, out_axes=-1)(code.whole), least_scale)

    def bound(
        params: Params, key: Key, episode: Episode, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        del step  # the bound does not change with training time
        latent_key, predict_key = jax.random.split(key)
        support, query = with_support(episode)
        code, posterior = encode(params, support), encode(params, query).whole
        one = Encoded(params, code._replace(whole=drawn(latent_key, posterior, 1)))

        def ask(x: PyTree, *, weight: Weight | None) -> Normal:
            found = predict(one, x, key=predict_key, weight=weight)
            return Normal(found.mean[..., 0], found.scale[..., 0])

        value, metrics = query_loss(ask, loss, Episode(support, query))
        total = len(query.y) if query.weight is None else jnp.sum(query.weight)
        kl = divergence(posterior, code.whole) / jnp.where(total > 0, total, 1)
        return value + kl, metrics | {"loss": value + kl, "kl": kl}

    return MetaLearner(initial(features, net, ways), adapt, predict, QueryGrad(of_loss(bound)))


def drawn(key: Key, distribution: Normal, samples: int) -> Float[Array, "samples width"]:
    """Samples of independent normal distributions, differentiable by mean and scale."""
    mean, scale = (leaf[None] for leaf in distribution)
    # Drawn long, then rounded: a draw in bfloat16 uses the bits of the key in another way.
    long = jnp.promote_types(mean.dtype, jnp.float32)
    noise = jax.random.normal(key, (samples, mean.shape[1]), long).astype(mean.dtype)
    return mean + scale * noise


def divergence(one: Normal, other: Normal) -> Scalar:
    """The Kullback-Leibler divergence of independent normal distributions, in nats.

    >>> one, other = Normal(jnp.ones(1), jnp.ones(1)), Normal(jnp.zeros(1), jnp.ones(1))
    >>> float(divergence(one, other)), float(divergence(one, one))
    (0.5, 0.0)
    """
    ratio = jnp.square(one.scale / other.scale)
    apart = jnp.square((one.mean - other.mean) / other.scale)
    return jnp.sum(ratio + apart - 1 - jnp.log(ratio)) / 2
