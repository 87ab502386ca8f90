"""The test of stored weights, without a training."""

from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from experiments import few_shot, sinusoid, tabular
from experiments.tables.rows import Experiment
from jaxdl import parallel
from jaxdl.data.sets.real_tables import TABLES
from jaxdl.recipes import few_shot as recipe
from jaxdl.recipes.choice import find
from jaxdl.recipes.few_shot import learner_of_sines
from jaxdl.recipes.learners import REGRESSORS, AnyLearner
from jaxdl.recipes.meta_training import initial_params
from jaxdl.recipes.plans import frame_of_images, learners_of
from jaxdl.recipes.score import by_seed
from jaxdl.recipes.tabular import learner_of_tables
from jaxdl.runs.config import Start, flat
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Params

Result = dict[str, Any]


def retest(experiment: Experiment, config: Any, weights: Path) -> Result:
    """The part of a result that tells of the learner, here of the one seed in the file.

    The devices are those that the training had.

    Raises:
        InputError: if the weights are not of the learner, or the data are not prepared.
    """
    if experiment == "few_shot":
        return _images(config, weights)
    return _sines(config, weights) if experiment == "sinusoid" else _tables(config, weights)


def _images(config: few_shot.Config, weights: Path) -> Result:
    choice = find(config.learner, recipe.learners_for(flat(config)))
    frame_of_images(few_shot.check, choice, config)["prepare"]()
    tasks = recipe.tasks_of(flat(config))
    trained, tested = learners_of(choice, tasks, config)
    params = _params(trained, tasks.train_x, weights)
    values = few_shot.scores_of(tasks, config)(tested, params, steps=config.test_inner_steps)
    return {choice.name: by_seed(values, tasks.metric)}


def _sines(config: sinusoid.Config, weights: Path) -> Result:
    parallel.one_thread()
    choice = find(config.learner, REGRESSORS)
    learner = learner_of_sines(flat(config), make=choice.make)
    params = _params(learner, jnp.zeros((2, 1)), weights)
    return {choice.name: sinusoid.errors(config, learner, params)}


def _tables(config: tabular.Config, weights: Path) -> Result:
    parallel.split_cores(config.tasks, config.run.devices)
    learner = learner_of_tables(flat(config))
    params = _params(learner, jnp.zeros((2, config.features)), weights)
    names = [name for name in TABLES if tabular.fits(name, config)]
    judged = partial(tabular.judged, config, learner, params, baselines=())
    return {"scores": {name: judged(name) for name in names}}


def _params(learner: AnyLearner, x: Array, weights: Path) -> Params:
    """The parameters `[1]` that the weights fill."""
    return initial_params(learner, keys=run_keys(0, 1), x=x, start=Start(init_from=weights))
