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
    """The rate with the best mean over seeds on validation episodes.

    All rates run one after another in one compiled program.

    Args:
        learner_of: `rate -> learner`. The rate is a scalar array.
        params: leaves `[seeds, ...]`.
        metric: the metric to compare. "loss" must be low, every other metric high.
        steps: inner steps. None is the learner's own number.
        chunk: as for `evaluate`.
    """

    def score(rate: Array) -> Array:
        options = {"episodes": episodes, "depths": (steps,), "chunk": chunk}
        run = evaluate(learner_of(rate), loss, sample, **options)  # type: ignore[arg-type]
        found = jnp.mean(jax.lax.map(lambda each: run(key, each)[metric], params))
        return -found if metric == "loss" else found

    return highest(rates, jax.lax.map(score, jnp.asarray(rates)))


def highest(rates: Sequence[float], scores: Sequence[float] | Array) -> float:
    """The rate with the highest score (the first of equal ones). NaN and infinity are the lowest.

    >>> highest((0.1, 0.3, 1.0), [0.5, 0.7, float("nan")])
    0.3
    """
    found = np.asarray(scores)
    return rates[int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))]
