"""Runs of few_shot and sinusoid as they store what they have learnt, without the training."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from experiments import few_shot, sinusoid
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.few_shot import image_shape, learner_of_images, learner_of_sines
from jaxdl.runs.best import Best
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import RunFlags, flat, unflat
from jaxdl.runs.identity import record_config
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys
from jaxdl.types import MetaLearner


def of_few_shot(folder: Path, **fields: Any) -> tuple[MetaLearner, list[Any]]:
    """Writes a run of two seeds; returns its learner and the parameters of each seed."""
    fields |= {"filters": 2, "seeds": 2, "run": RunFlags(runs_dir=folder)}
    name = fields.pop("learner", "maml")
    config = with_learner(unflat(few_shot.Config, fields), name)
    record_config(folder, config)
    learner = learner_of_images(flat(config))
    images = jnp.zeros((2, *image_shape(flat(config))))
    start = lambda key: learner.init(key, images)  # noqa: E731
    params = init_states(start, run_keys(0, 2), optax.sgd(0.1)).params
    best = Best(folder / "best")
    best.keep(10, np.zeros(2), params, [])
    best.close()
    return learner, per_seed(params)


def of_sinusoid(folder: Path, **fields: Any) -> tuple[MetaLearner, list[Any]]:
    """As `of_few_shot`."""
    config = unflat(sinusoid.Config, fields | {"seeds": 2})
    record_config(folder, config)
    learner = learner_of_sines(flat(config))
    start = lambda key: learner.init(key, jnp.zeros((1, 1)))  # noqa: E731
    state = init_states(start, run_keys(0, 2), optax.adam(config.lr))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, state._replace(step=jnp.int32(7)))
    return learner, per_seed(state.params)
