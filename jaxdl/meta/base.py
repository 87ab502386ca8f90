"""What all meta-learners share: the default meta-gradient, and evaluation over many episodes."""

from collections.abc import Callable, Sequence

import jax
from jax import lax
from jax.tree_util import Partial

from jaxdl.grads import of_loss
from jaxdl.types import (
    AdaptFn,
    Array,
    Episode,
    GradFn,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Params,
    PredictFn,
    Sampler,
)


def through_adaptation(adapt: AdaptFn, predict: PredictFn, loss: LossFn) -> GradFn:
    """The gradient of the query loss after adaptation, differentiated through the adaptation."""

    def query_loss(params: Params, key: Key, episode: Episode) -> tuple[Array, Metrics]:
        adapt_key, predict_key = jax.random.split(key)
        adapted = adapt(adapt_key, params, episode.support)
        query = episode.query
        return loss(predict(adapted, query.x, key=predict_key), query.y, query.weight)

    return of_loss(query_loss)


def evaluate(
    learner: MetaLearner,
    loss: LossFn,
    sample: Sampler,
    *,
    episodes: int,
    depths: Sequence[int | None] = (None,),
    chunk: int | None = None,
) -> Callable[[Key, Params], Metrics]:
    """A compiled `(key, params) -> metrics` over `episodes` episodes drawn from `sample`.

    Episode e is a function of `(key, e)` alone, so two learners, two depths or two checkpoints that
    share a key are compared on the same episodes. Prediction is without dropout.

    Args:
        depths: numbers of inner steps to report; None is the depth that was trained.
        chunk: episodes that are vmapped together, see `grads.over_tasks`.

    Returns:
        Metrics of the query sets, each `[depths, episodes]`.
    """

    def one(params: Params, draw: Sampler, key: Key) -> tuple[Metrics, ...]:
        sample_key, adapt_key = jax.random.split(key)
        episode = draw(sample_key)
        query = episode.query

        def at_depth(steps: int | None) -> Metrics:
            adapted = learner.adapt(adapt_key, params, episode.support, steps)
            return loss(learner.predict(adapted, query.x), query.y, query.weight)[1]

        return tuple(at_depth(steps) for steps in depths)

    @jax.jit
    def run(draw: Sampler, key: Key, params: Params) -> Metrics:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jax.numpy.arange(episodes))
        size = None if chunk == 1 else chunk or episodes  # no vmap at all for one at a time
        per_depth = lax.map(lambda k: one(params, draw, k), keys, batch_size=size)
        return jax.tree.map(lambda *values: jax.numpy.stack(values), *per_depth)

    return lambda key, params: run(as_partial(sample), key, params)


def as_partial(sample: Sampler) -> Partial:
    """The sampler as a pytree, so that a compiled function can take it as an argument."""
    return sample if isinstance(sample, Partial) else Partial(sample)
