"""The learning rate of an adaptation, chosen on validation episodes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.meta.base import evaluate
from jaxdl.types import Array, Key, LossFn, Params, Sampler, TaskLearner


def best_rate(
    learner_of: Callable[[Array], TaskLearner],
    rates: Sequence[float],
    params: Params,
    loss: LossFn,
    sample: Sampler,
    *,
    key: Key,
    episodes: int,
    metric: str,
    steps: int | None = None,
    chunk: int | None = None,
) -> float:
    """The rate whose learner is best on validation episodes, in the mean of all seeds.

    All rates run one after another in one compiled program.

    Args:
        learner_of: the learner that adapts with a rate, a scalar array.
        params: leaves `[seeds, ...]`.
        metric: which metric of the loss decides: of "loss" the lowest, of others the highest.
        steps: inner steps; None is the number that the learner takes by itself.
        chunk: as for `evaluate`.
    """

    def score(rate: Array) -> Array:
        options = {"episodes": episodes, "depths": (steps,), "chunk": chunk}
        run = evaluate(learner_of(rate), loss, sample, **options)  # type: ignore[arg-type]
        found = jnp.mean(jax.lax.map(lambda each: run(key, each)[metric], params))
        return -found if metric == "loss" else found

    return highest(rates, jax.lax.map(score, jnp.asarray(rates)))


def highest(rates: Sequence[float], scores: Sequence[float] | Array) -> float:
    """The rate with the highest score, the first of equals; NaN and infinity are the lowest.

    >>> highest((0.1, 0.3, 1.0), [0.5, 0.7, float("nan")])
    0.3
    """
    found = np.asarray(scores)
    return rates[int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))]
