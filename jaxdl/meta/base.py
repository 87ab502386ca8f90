"""The parts that all meta-learners share: the default meta-gradient, and evaluation."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from jaxdl.grads import Objective, of_loss
from jaxdl.meta.queries import query_loss
from jaxdl.parallel import divided
from jaxdl.types import (
    AdaptFn,
    Array,
    Batch,
    Count,
    Episode,
    GradFn,
    Grads,
    Key,
    LossFn,
    Metrics,
    Model,
    Params,
    PredictFn,
    PyTree,
    Sampler,
    Scalar,
    TaskLearner,
    Weight,
)

Ask = Callable[..., PyTree]
"""`(adapted, support, x, *, key, weight) -> y`: a prediction that knows the support set."""


@dataclasses.dataclass(frozen=True)
class QueryGrad:
    """A `GradFn` of query losses after adaptation, which is known as one.

    `asking` makes the same with other predictions for queries and another loss. A grad of
    `through_adaptation` has none, but its `loss`, of which the same can be made. A grad with
    neither is of another kind, such as the bound of a neural process.
    """

    grad: GradFn
    asking: Callable[[Ask, LossFn], GradFn] | None = None
    loss: LossFn | None = None

    def __call__(
        self, key: Key, step: Count, params: Params, episode: Episode, /
    ) -> tuple[Grads, Metrics]:
        """The gradient and the metrics of one episode."""
        return self.grad(key, step, params, episode)


def through_adaptation(adapt: AdaptFn, predict: PredictFn, loss: LossFn) -> GradFn:
    """The gradient of the query loss after adaptation, differentiated through the adaptation.

    A query of weight 0 counts neither in the loss nor in the predictions for other queries.

    The learner of this example predicts one number: `params` times the mean of the support set.

    >>> import jax.numpy as jnp, jax, jaxdl
    >>> def adapt(key, params, support, steps=None):
    ...     return params * jnp.mean(support.y)
    >>> def predict(adapted, x, *, key=None, weight=None):
    ...     return adapted * jnp.ones_like(x)
    >>> grad = jaxdl.through_adaptation(adapt, predict, jaxdl.mean_squared_error)
    >>> one = jnp.ones((1, 1))
    >>> episode = jaxdl.Episode(jaxdl.Batch(one, 2 * one), jaxdl.Batch(one, 3 * one))
    >>> float(jax.jit(grad)(jax.random.key(0), 0, 1.0, episode)[0])  # of (2 p - 3)^2 at p = 1
    -4.0
    """
    return QueryGrad(of_loss(after_adaptation(adapt, predict, loss)), loss=loss)


def predict_of(model: Model) -> PredictFn:
    """Predictions of a model whose adapted state is parameters of it.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> model, x = jaxdl.mlp((3,)), jnp.ones((4, 2))
    >>> predict_of(model)(model.init(jax.random.key(0), x), x).shape
    (4, 3)
    """

    def predict(
        adapted: Params, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        return model.apply(adapted, x, key=key, weight=weight)

    return predict


def with_support(adapt: AdaptFn, ask: Ask) -> tuple[AdaptFn, PredictFn]:
    """Adaptation to a pair, of what `adapt` gives and the support set; and prediction by `ask`.

    >>> def adapt(key, params, support, steps=None):
    ...     return params * support
    >>> def ask(adapted, support, x, *, key, weight):
    ...     return adapted + support + x
    >>> adapt, predict = with_support(adapt, ask)
    >>> adapt(None, 2, 3), predict((6, 3), 1)
    ((6, 3), 10)
    """

    def to_pair(
        key: Key, params: Params, support: Batch, steps: int | None = None
    ) -> tuple[PyTree, Batch]:
        return adapt(key, params, support, steps), support

    def predict(
        adapted: tuple[PyTree, Batch],
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Weight | None = None,
    ) -> PyTree:
        return ask(*adapted, x, key=key, weight=weight)

    return to_pair, predict


def after_adaptation(adapt: AdaptFn, predict: PredictFn, loss: LossFn) -> Objective:
    """The query loss of an `Episode` after adaptation, as a function of the meta-parameters.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.nearest_centroid(jaxdl.cross_entropy, ways=2)
    >>> value = after_adaptation(learner.adapt, learner.predict, jaxdl.cross_entropy)
    >>> batch = jaxdl.Batch(jnp.eye(2), jnp.array([0, 1]))
    >>> _, metrics = value((), jax.random.key(0), jaxdl.Episode(batch, batch))
    >>> float(metrics["accuracy"])
    1.0
    """

    def adapted_loss(
        params: Params, key: Key, episode: Episode, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        del step  # the loss does not change with training time
        adapt_key, predict_key = jax.random.split(key)
        adapted = adapt(adapt_key, params, episode.support)
        return query_loss(partial(predict, adapted, key=predict_key), loss, episode)

    return adapted_loss


def evaluate(
    learner: TaskLearner,
    loss: LossFn,
    sample: Sampler,
    *,
    episodes: int,
    depths: Sequence[int | None] = (None,),
    chunk: int | None = None,
    devices: int = 1,
) -> Callable[..., Metrics]:
    """A compiled `(key, params, first=0) -> metrics` over `episodes` episodes from `sample`.

    Episode e is a function of `(key, e)` alone. So the same key compares two learners, two depths
    or two checkpoints on the same episodes. They count up from `first`. Prediction uses no dropout.
    Adaptation uses it only if the learner was made with `inner_dropout=True`.

    Args:
        depths: numbers of inner steps to report. None is the number of training.
        chunk: episodes that are vmapped together. See `grads.over_tasks`.
        devices: devices of this process that share the episodes. The metrics are the same for each
            number.

    Returns:
        Metrics of the query sets, each `[depths, episodes]`. An episode none of whose queries
        counts has no score: its metrics are NaN.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> learner = jaxdl.maml(
    ...     jaxdl.mlp((8, 1)), jaxdl.mean_squared_error, tx=optax.sgd(0.01), steps=1
    ... )
    >>> sample = jaxdl.sinusoid(shots=5, queries=5)
    >>> params = jax.jit(learner.init)(jax.random.key(0), jnp.zeros((1, 1)))
    >>> test = jaxdl.evaluate(
    ...     learner, jaxdl.mean_squared_error, sample, episodes=20, depths=(0, 1)
    ... )
    >>> loss = test(jax.random.key(1), params)["loss"]
    >>> loss.shape, bool(loss[1].mean() < loss[0].mean())
    ((2, 20), True)
    """

    def one(params: Params, draw: Sampler, key: Key) -> tuple[Metrics, ...]:
        sample_key, adapt_key = episode_keys(key)
        episode = draw(sample_key)

        def at_depth(steps: int | None) -> Metrics:
            adapted = learner.adapt(adapt_key, params, episode.support, steps)
            found = query_loss(partial(learner.predict, adapted), loss, episode)[1]
            if (weight := episode.query.weight) is None:
                return found
            return jax.tree.map(lambda v: jnp.where(jnp.any(weight > 0), v, jnp.nan), found)

        return tuple(at_depth(steps) for steps in depths)

    def run(draw: Sampler, key: Key, params: Params, numbers: Array) -> tuple[Metrics, ...]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        size = None if chunk == 1 else chunk or len(numbers)  # None: one at a time, without vmap
        return lax.map(lambda k: one(params, draw, k), keys, batch_size=size)

    shared = divided(run, devices)

    def measure(key: Key, params: Params, first: Count | int = 0) -> Metrics:
        numbers = jnp.int32(first) + jnp.arange(episodes)
        per_depth = shared(as_partial(sample), key, params, numbers)
        return jax.tree.map(lambda *values: jnp.stack(values), *per_depth)

    return measure


def episode_keys(key: Key) -> tuple[Key, Key]:
    """The key that draws an episode of `evaluate`, and that of its adaptation.

    Args:
        key: `jax.random.fold_in(key, e)`, for episode e of the key that `evaluate` got.
    """
    sample_key, adapt_key = jax.random.split(key)
    return sample_key, adapt_key


def as_partial(sample: Sampler) -> Partial:
    """The sampler as a pytree, so that a compiled function can take it as an argument."""
    return sample if isinstance(sample, Partial) else Partial(sample)
