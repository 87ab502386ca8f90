"""What a grid of few_shot or of sinusoid trains: the same as the command of one configuration."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl import parallel
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.losses import mean_squared_error
from jaxdl.recipes.choice import Choice
from jaxdl.recipes.few_shot import (
    check_learners,
    learner_of_images,
    learner_of_sines,
    tasks_of,
)
from jaxdl.recipes.grid_training import Parts, Plan
from jaxdl.recipes.learners import AnyLearner
from jaxdl.recipes.meta_training import one_on_cpu, optimiser
from jaxdl.recipes.own_data import content_of
from jaxdl.recipes.tasks import Tasks
from jaxdl.runs.config import flat
from jaxdl.runs.identity import refuse_other_steps
from jaxdl.runs.run import Run
from jaxdl.types import TransferLearner


def learners_of(choice: Choice, tasks: Tasks, config: Any) -> tuple[AnyLearner, AnyLearner]:
    """The learner of few_shot for training tasks, and the one for validation and test tasks."""
    options: dict[str, Any] = {"make": choice.make, "loss": tasks.loss}
    trained, tested = (
        learner_of_images(flat(config), tasks.classes, ways=ways, **options)
        for ways in (tasks.ways, tasks.test_ways)
    )
    return trained, tested


def frame_of_images(check: Callable[[Any], None], choice: Choice, config: Any) -> dict[str, Any]:
    """The options of `run_experiment` for few_shot, whose own check is `check`."""
    ways = "" if config.own.task else f"{config.ways}way-"
    label = f"{config.data}-{ways}{config.shots}shot"
    label += f"-{choice.name}" * (choice.name != "maml")
    cores = partial(parallel.split_cores, config.tasks // max(1, config.chunk), config.run.devices)
    contents = {**choice.contents, **content_of(flat(config))}
    return {"label": label, "check": check, "prepare": cores, "contents": contents}


def begin_images(choice: Choice, config: Any, run: Run) -> None:
    """What a run of few_shot in a grid needs before it trains."""
    refuse_another_schedule(config, run)
    choice.keep(run)


def refuse_another_schedule(config: Any, run: Run) -> None:
    """Validates the steps of a run of few_shot that has begun."""
    if config.schedule == "cosine" and not config.decay_steps:
        refuse_other_steps(run.directory, config.steps, "decay_steps")


def plan_of_images(choice: Choice, seed: int, config: Any) -> Plan:
    """The training and the validation of few_shot.

    Args:
        seed: of the key of the validation tasks.

    Raises:
        InputError: as `tasks_of` and `check_learners`.
    """
    tasks = tasks_of(flat(config))
    check_learners(choice, *learners_of(choice, tasks, config), tasks)

    def parts(config: Any) -> Parts:
        return *learners_of(choice, tasks, config), optimiser(flat(config))

    return plan_by(parts, tasks, seed, config)


def plan_by(parts: Callable[[Any], Parts], tasks: Tasks, seed: int, config: Any) -> Plan:
    """The training and the validation of learners on the tasks of few_shot; see `Plan.parts`.

    A command and a grid read their settings here, so they train the same.
    """
    fields, labelled = flat(config), isinstance(parts(config)[0], TransferLearner)
    return Plan(
        parts,
        tasks.loss,
        tasks.labelled or tasks.train if labelled else tasks.train,
        tasks.validation,
        x=tasks.train_x,
        tasks=fields["batch"] if labelled else fields["tasks"],
        key=jax.random.key(seed),
        episodes=fields["eval_episodes"],
        metric=tasks.metric,
        chunk=fields["chunk"] or one_on_cpu(None),
        chunk_of_validation=one_on_cpu(200),
        inner_steps=fields["test_inner_steps"],
        eval_every=fields["eval_every"],
    )


def plan_of_sines(choice: Choice, seed: int, config: Any) -> Plan:
    """The training of sinusoid without its baseline. One validation follows the last step.

    Args:
        seed: of the key of the validation tasks, which are drawn as training tasks are.

    Raises:
        InputError: as `Choice.check`.
    """
    sample = sinusoid(shots=config.shots, queries=config.shots)

    def parts(config: Any) -> Parts:
        learner = learner_of_sines(flat(config), make=choice.make)
        return learner, learner, optax.adam(config.lr)

    choice.check(parts(config)[0], sample, mean_squared_error)
    return Plan(
        parts,
        mean_squared_error,
        sample,
        sample,
        x=jnp.zeros((2, 1)),
        tasks=config.tasks,
        key=jax.random.key(seed),
        episodes=600,
        metric="loss",
        keeps_best=False,
    )
