"""The test of stored weights, without a training."""

from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from experiments import few_shot, sinusoid
from jaxdl import parallel
from jaxdl.recipes import few_shot as recipe
from jaxdl.recipes.choice import find
from jaxdl.recipes.few_shot import learner_of_sines
from jaxdl.recipes.learners import REGRESSORS, AnyLearner
from jaxdl.recipes.meta_training import initial_params
from jaxdl.recipes.plans import frame_of_images, learners_of
from jaxdl.recipes.score import by_seed
from jaxdl.runs.config import Start, flat
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Params

Seeds = list[dict[str, Any]]


def retest(experiment: Literal["few_shot", "sinusoid"], config: Any, weights: Path) -> Seeds:
    """What a result has for a learner: the numbers of each seed, here of the one in the file.

    The devices are those that the training had.

    Raises:
        InputError: if the weights are not of the learner, or the data are not prepared.
    """
    return (_images if experiment == "few_shot" else _sines)(config, weights)


def _images(config: few_shot.Config, weights: Path) -> Seeds:
    choice = find(config.learner, recipe.learners_for(flat(config)))
    frame_of_images(few_shot.check, choice, config)["prepare"]()
    tasks = recipe.tasks_of(flat(config))
    trained, tested = learners_of(choice, tasks, config)
    scores = few_shot.scores_of(tasks, config)
    params = _params(trained, tasks.train_x, weights)
    return by_seed(scores(tested, params, steps=config.test_inner_steps), tasks.metric)


def _sines(config: sinusoid.Config, weights: Path) -> Seeds:
    parallel.one_thread()
    learner = learner_of_sines(flat(config), make=find(config.learner, REGRESSORS).make)
    return sinusoid.errors(config, learner, _params(learner, jnp.zeros((2, 1)), weights))


def _params(learner: AnyLearner, x: Array, weights: Path) -> Params:
    """The parameters `[1]` that the weights fill."""
    return initial_params(learner, keys=run_keys(0, 1), x=x, start=Start(init_from=weights))
