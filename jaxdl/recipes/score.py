"""The scores of a learner, with their intervals."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import parallel
from jaxdl.data.prepare.cache import save_arrays
from jaxdl.errors import InputError
from jaxdl.files.atomic import writing
from jaxdl.meta.base import evaluate
from jaxdl.meta.tried import check_learner
from jaxdl.recipes.arguments import check_key, check_sampler, drawn
from jaxdl.recipes.blocks import in_blocks
from jaxdl.report.intervals import Interval, mean_ci95, over_episodes, over_seeds
from jaxdl.runs.run import Run
from jaxdl.train.loop import per_seed
from jaxdl.types import Key, LossFn, Params, PyTree, Sampler, TaskLearner


def score(
    learner: TaskLearner,
    params: Params,
    loss: LossFn,
    sample: Sampler,
    *,
    episodes: int,
    key: Key,
    steps: int | None = None,
    chunk: int | None = None,
    devices: int = 1,
) -> dict[str, Interval]:
    """The metrics of the query sets of `episodes` episodes, each with its 95 % interval.

    Episode e is a function of `(key, e)` alone, so learners that share a key have the same
    episodes. `score` compiles at each call. For repeated validation, compile once with
    `jaxdl.evaluate`.

    Args:
        params: parameters of one seed, or of several, leaves `[seeds, ...]`, as `fit` returns them.
            With several seeds, the interval is over the means of the seeds by Student's t. With one
            seed, it is over the episodes. The interval of a single value is NaN.
        steps: inner steps. None is the number of training.
        chunk: episodes that are adapted together. By default 1 on a CPU, 200 on an accelerator.
        devices: devices of this process that share the episodes.

    Raises:
        InputError: if `params` do not have the structure and shapes of `learner.init`, with or
            without a leading axis of seeds; if an argument is of another kind, or the learner has
            fewer outputs than the tasks have classes.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> loss, sample = jaxdl.mean_squared_error, jaxdl.sinusoid(shots=5, queries=5)
    >>> learner = jaxdl.maml(jaxdl.mlp((8, 1)), loss, tx=optax.sgd(0.01), steps=1)
    >>> params = jax.jit(learner.init)(jax.random.key(0), jnp.zeros((1, 1)))
    >>> found = jaxdl.score(learner, params, loss, sample, episodes=50, key=jax.random.key(1))
    >>> found["loss"].over, bool(found["loss"].low < found["loss"].mean)
    ('50 episodes', True)
    """
    check_key(key)
    check_sampler(sample)
    if hasattr(params, "history"):
        raise InputError("`params=` is all that fit returned. Give its .params")
    episode = drawn(sample, key)
    check_learner(learner, episode, loss)
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else min(episodes, 200)
    options: dict[str, Any] = {"episodes": episodes, "chunk": chunk, "devices": devices}
    run = evaluate(learner, loss, sample, depths=(steps,), **options)
    if not _several(learner, params, episode.support.x):
        return {name: over_episodes(values) for name, values in run(key, params).items()}
    found = [run(key, each) for each in per_seed(params)]
    means = {name: [float(np.mean(each[name])) for each in found] for name in found[0]}
    return {name: over_seeds(values) for name, values in means.items()}


def score_by_seed(
    learner: TaskLearner,
    params: Params,
    *,
    loss: LossFn,
    sample: Sampler,
    episodes: int,
    key: Key,
    steps: int | None = None,
    chunk: int | None = None,
    devices: int = 1,
) -> dict[str, np.ndarray]:
    """The metrics of each test episode for each seed of `params` `[seeds, ...]`.

    The arguments are those of `score`. A long test shows the time left.

    Returns:
        Arrays `[seeds, episodes]` by the names of the metrics.
    """
    options: dict[str, Any] = {"depths": (steps,), "chunk": chunk, "devices": devices}
    measure = in_blocks(partial(evaluate, learner, loss, sample, **options), episodes, "testing")
    return {name: values[:, 0] for name, values in measure(key, per_seed(params)).items()}


def by_seed(values: Mapping[str, np.ndarray], metric: str = "accuracy") -> list[dict[str, float]]:
    """For each seed: the mean of `metric`, half of its 95 % interval `ci95` over the episodes, and
    the mean `loss`.

    Args:
        values: what `score_by_seed` gives.
    """
    rows = []
    for row, losses in zip(values[metric], values["loss"], strict=True):
        mean, ci95 = mean_ci95(row)
        rows.append({"loss": float(jnp.mean(losses)), metric: mean, "ci95": ci95})
    return rows


EPISODES = "episodes.npz"
"""The file of a run with the metrics of each test episode."""


def keep_episodes(run: Run, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes `episodes.npz` of a run, for `scripts/compare`: arrays `maml/accuracy`, say.

    Args:
        values: for each learner, what `score_by_seed` gives.
    """
    arrays = {
        f"{learner}/{metric}": array
        for learner, metrics in values.items()
        for metric, array in metrics.items()
    }
    path = run.directory / EPISODES
    if parallel.is_first():
        with writing(path):
            save_arrays(path, arrays)


def _several(learner: TaskLearner, params: Params, x: PyTree) -> bool:
    """Whether the parameters have an axis of seeds.

    Raises:
        InputError: if the parameters do not belong to the learner.
    """
    expected = jax.eval_shape(learner.init, jax.random.key(0), x)
    structure: object = jax.tree.structure(expected)
    if structure == jax.tree.structure(params):
        leaves = zip(jax.tree.leaves(expected), jax.tree.leaves(params), strict=True)
        pairs = [(one.shape, jnp.shape(leaf)) for one, leaf in leaves]
        if all(one == shape for one, shape in pairs):
            return False
        if all(shape and one == shape[1:] for one, shape in pairs):
            return True
    raise InputError(
        "`params=`: the parameters have another structure or other shapes than those of"
        " learner.init. Give those of this learner, of one seed or of several"
    )
