"""The learners and the test of regression by distributions, and the tasks in one dimension."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from numpy.typing import ArrayLike

from jaxdl.data.sets.gp import CURVES, KERNELS, gp, gp_posterior, gp_task
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.losses import Normal, gaussian_nll
from jaxdl.meta.base import as_partial, episode_keys, evaluate
from jaxdl.models.mlp import mlp
from jaxdl.models.process import normal
from jaxdl.optim.schedules import cosine
from jaxdl.recipes.blocks import in_blocks
from jaxdl.recipes.choice import build_for_curves, find, own_hints
from jaxdl.recipes.learners import PROCESSES, Make
from jaxdl.recipes.meta_training import meta_train
from jaxdl.report.intervals import mean_ci95
from jaxdl.runs.config import Start
from jaxdl.runs.identity import refuse_other_steps
from jaxdl.runs.run import Run
from jaxdl.train.streams import run_keys
from jaxdl.types import (
    Episode,
    Key,
    MetaLearner,
    Metrics,
    Model,
    Params,
    Sampler,
    TaskLearner,
)

TASKS: dict[str, Callable[[], Sampler]] = {
    **{name: lambda name=name: gp(name) for name in CURVES},  # type: ignore[misc]
    "sines": lambda: sinusoid(shots=10, queries=10),
}
"""Samplers of the tasks by name."""
IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
"""Features that are the inputs themselves."""
CHUNK = 50
"""Curves of a test that are computed at once."""


def learner_of_curves(
    config: Mapping[str, Any], *, make: Make | None = None, tasks: str = "curves"
) -> MetaLearner:
    """The learner of a run of regression_1d or regression_2d, by the fields of its configuration.

    A net with an output per number is that of the sine waves, 40-40, with a mean and a scale. The
    features of the others are the inputs themselves.

    Args:
        make: by default the function that the field `learner` names.
        tasks: what the tasks are called in a message.

    Raises:
        InputError: if it trains on labelled examples.
    """
    make = make or find(config["learner"], PROCESSES).make
    own = {name: config[name] for name in own_hints(make)}

    def net_of(outputs: int | None) -> Model:
        return IDENTITY if outputs is None else normal(mlp((40, 40, 2 * outputs)))

    return build_for_curves(make, net_of, gaussian_nll, own=own, tasks=tasks)


def on_support(sample: Sampler) -> Sampler:
    """The same tasks, whose queries are the support points.

    >>> support, query = on_support(sinusoid(shots=3, queries=5))(jax.random.key(0))
    >>> support is query
    True
    """

    def draw(sample: Sampler, key: Key) -> Episode:
        support = sample(key).support
        return Episode(support, support)

    return Partial(draw, as_partial(sample))


def trained(
    config: Mapping[str, Any],
    run: Run,
    learner: MetaLearner,
    sample: Sampler,
    *,
    inputs: int,
    start: Start,
) -> Params:
    """Meta-trains all seeds in one program, by Adam along a cosine. The parameters are `[seeds]`.

    Args:
        config: with `steps`, `decay_steps`, `tasks`, `lr`, `seed` and `seeds`.
        inputs: numbers per input of a task.
        start: weights to start from.

    Raises:
        InputError: if the run was begun with other steps, and these decide the rate.
    """
    if not config["decay_steps"]:
        refuse_other_steps(run.directory, config["steps"], "decay_steps")
    return meta_train(
        run,
        learner,
        sample,
        tx=optax.adam(cosine(config["lr"], config["decay_steps"] or config["steps"])),
        keys=run_keys(config["seed"], config["seeds"]),
        x=jnp.zeros((2, inputs)),
        tasks=config["tasks"],
        chunk=None,
        start=start,
    )


def measure_of(
    learner: TaskLearner, sample: Sampler, *, episodes: int, chunk: int = CHUNK
) -> Callable[[Key, Params], Metrics]:
    """`(key, params) -> metrics [episodes]` of targets, and those of the context as "context".

    A context is the support set, as in the papers on neural processes.

    Args:
        chunk: tasks that are computed at once.
    """
    size = min(chunk, episodes)
    targets, context = (
        in_blocks(partial(evaluate, learner, gaussian_nll, each, chunk=size), episodes, what)
        for each, what in ((sample, "testing targets"), (on_support(sample), "testing the context"))
    )

    def run(key: Key, params: Params) -> Metrics:
        found = {name: v[0, 0] for name, v in targets(key, [params]).items() if name != "loss"}
        return found | {"context": context(key, [params])["log_likelihood"][0, 0]}

    return run


def summary(metrics: Mapping[str, ArrayLike]) -> dict[str, dict[str, float]]:
    """Mean and half its 95 % interval of each metric `[tasks]`.

    >>> summary({"loss": [1.0, 3.0]})
    {'loss': {'mean': 2.0, 'ci95': 1.959964}}
    """
    found = {name: mean_ci95(values) for name, values in metrics.items()}
    return {
        name: {"mean": float(mean), "ci95": float(half)} for name, (mean, half) in found.items()
    }


def posterior_of(tasks: str, key: Key, episode: Episode) -> Callable[[Any], Normal]:
    """The exact posterior of tasks that were drawn by these keys, as a function of inputs."""
    _, length, scale = jax.vmap(lambda each: gp_task(tasks, each))(key)

    def posterior(x: Any) -> Normal:
        return gp_posterior(tasks, length, scale, episode.support, x)

    return posterior


def exact_metrics(tasks: str, key: Key, *, episodes: int) -> dict[str, np.ndarray] | None:
    """The metrics of the exact posterior on the tasks of `measure_of`, in float64.

    It knows kernel, lengthscale and scale of each task. None: there is no posterior.
    """
    if tasks not in KERNELS:
        return None
    keys, _ = jax.vmap(episode_keys)(
        jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(episodes))
    )
    draw, parts = jax.jit(jax.vmap(TASKS[tasks]())), []
    for first in range(0, episodes, 1000):
        some = keys[first : first + 1000]
        episode = draw(some)
        posterior = posterior_of(tasks, some, episode)
        found, error = _log_likelihood(posterior(episode.query.x), episode.query)
        context, _ = _log_likelihood(posterior(episode.support.x), episode.support)
        parts.append({"log_likelihood": found, "squared_error": error, "context": context})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _log_likelihood(prediction: Normal, batch: Any) -> tuple[Any, Any]:
    """Per task: the mean log-likelihood of its points, and their squared error."""
    weight = np.asarray(batch.weight, np.float64)
    error = (np.asarray(batch.y, np.float64) - prediction.mean)[..., 0]
    scale = prediction.scale[..., 0]
    each = -((error / scale) ** 2) / 2 - np.log(scale) - np.log(2 * np.pi) / 2
    means = [(weight * of_point).sum(-1) / weight.sum(-1) for of_point in (each, error**2)]
    return means[0], means[1]
