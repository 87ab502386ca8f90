"""How good a learner is, with the interval that belongs to the number."""

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.meta.base import evaluate
from jaxdl.report.intervals import Interval, over_episodes, over_seeds
from jaxdl.train.loop import per_seed
from jaxdl.types import Key, LossFn, Params, Sampler, TaskLearner


def score(
    learner: TaskLearner,
    params: Params,
    loss: LossFn,
    sample: Sampler,
    *,
    episodes: int,
    key: Key,
    steps: int | None = None,
    seeds: int | None = None,
    chunk: int | None = None,
) -> dict[str, Interval]:
    """The metrics of the query sets of `episodes` episodes, each with its 95 % interval.

    Episode e is a function of `(key, e)` alone, so learners that share a key meet the same
    episodes. It compiles at each call; for a validation that comes again and again compile once, by
    `jaxdl.evaluate`.

    Args:
        steps: inner steps; None is the number that was trained.
        seeds: `params` is of so many seeds, leaves `[seeds, ...]`. The interval is then over the
            means of the seeds by Student's t, and else over the episodes. That of a single seed
            or episode is NaN.
        chunk: episodes that are adapted together; by default 1 on a CPU, 200 on an accelerator.

    Raises:
        InputError: if `params` are of another number of seeds.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> loss, sample = jaxdl.mean_squared_error, jaxdl.sinusoid(shots=5, queries=5)
    >>> learner = jaxdl.maml(jaxdl.mlp((8, 1)), loss, tx=optax.sgd(0.01), steps=1)
    >>> params = jax.jit(learner.init)(jax.random.key(0), jnp.zeros((1, 1)))
    >>> found = jaxdl.score(learner, params, loss, sample, episodes=50, key=jax.random.key(1))
    >>> found["loss"].over, bool(found["loss"].low < found["loss"].mean)
    ('50 episodes', True)
    """
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else min(episodes, 200)
    run = evaluate(learner, loss, sample, episodes=episodes, depths=(steps,), chunk=chunk)
    if seeds is None:
        return {name: over_episodes(values) for name, values in run(key, params).items()}
    each_seed = per_seed(params)
    if len(each_seed) != seeds:
        raise InputError(f"`seeds={seeds}`: the parameters have a leading axis of {len(each_seed)}")
    found = [run(key, each) for each in each_seed]
    means = {name: [float(np.mean(each[name])) for each in found] for name in found[0]}
    return {name: over_seeds(values) for name, values in means.items()}
