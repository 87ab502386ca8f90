"""Several runs that differ in numbers train in one compiled program, as several seeds do."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.files.atomic import write_text
from jaxdl.recipes.learners import AnyLearner
from jaxdl.recipes.meta_training import Validate, devices_for, grad_of, validation_of
from jaxdl.recipes.varied import Values, Varied, varied, varied_step
from jaxdl.runs.config import Start, flat
from jaxdl.runs.grid import with_values
from jaxdl.runs.run import Run
from jaxdl.runs.together import Together
from jaxdl.runs.weights import started
from jaxdl.train.loop import loop
from jaxdl.train.memory import refuse_too_large
from jaxdl.train.steps import init_state, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Key, LossFn, PyTree, Sampler, StepFn, TrainState

Parts = tuple[AnyLearner, AnyLearner, optax.GradientTransformation]
DIVERGED = "diverged.json"
"""The file of a run that stopped because its loss was not finite: its steps and the message."""


class Plan(NamedTuple):
    """What the runs of a grid train and validate by.

    `parts`: configuration -> the learner of training tasks, that of validation tasks, and the
        optimiser. Numbers of the configuration may be traced.
    `inner_steps`: of a validation. `eval_every`: None validates after the last step alone.
    `keeps_best`: whether a run keeps its best parameters, by `metric`.
    The others are as of `meta_train` and `validation_of`.
    """

    parts: Callable[[Any], Parts]
    loss: LossFn
    sample: Sampler
    validation: Sampler
    x: PyTree
    tasks: int
    key: Key
    episodes: int
    metric: str
    chunk: int | None = None
    chunk_of_validation: int | None = None
    inner_steps: int | None = None
    eval_every: int | None = None
    keeps_best: bool = True


def validation_by(plan: Plan, tested: AnyLearner, run: Run) -> Validate:
    """The validation of a plan by its learner of validation tasks, on the devices of the run."""
    return validation_of(
        tested,
        plan.loss,
        plan.validation,
        key=plan.key,
        episodes=plan.episodes,
        steps=plan.inner_steps,
        chunk=plan.chunk_of_validation,
        devices=parallel.count_devices(run.flags.devices),
    )


def train_grid(plan: Plan, configs: Sequence[Any], runs: Sequence[Run], fields: set[str]) -> None:
    """Trains runs to their last step. Those that have done equally many steps share a program.

    Args:
        configs: of the runs; they differ in `fields` alone.

    Raises:
        InputError: if a field decides more than numbers of the program.
        RunError, Interrupted: as `Together.watch`.
    """
    config, keys = configs[0], run_keys(configs[0].random.seed, configs[0].random.seeds)
    values = [{name: jnp.float32(flat(each)[name]) for name in sorted(fields)} for each in configs]

    def parts(own: Values) -> Parts:
        return plan.parts(with_values(config, own))

    trained = plan.parts(config)[0]
    try:
        first = _initial(parts, plan, keys, values, config.start)
        states = [run.restore(state) for run, state in zip(runs, first, strict=True)]
        for done in sorted({int(state.step) for state in states}):
            of = [n for n, state in enumerate(states) if int(state.step) == done]
            together = Together([runs[n] for n in of], partial(_split, len(of)), len(keys))
            state = _joined([states[n] for n in of], _tiled([values[n] for n in of], len(keys)))
            try:
                _train(parts, plan, together, state, jnp.concatenate([keys] * len(of)), trained)
            finally:  # also if a signal came
                for n, message in together.failed.items():
                    note = {"steps": config.steps, "message": message}
                    write_text(together.runs[n].directory / DIVERGED, json.dumps(note) + "\n")
    except jax.errors.ConcretizationTypeError as error:
        flags = " or ".join(f"`{name}=`" for name in values[0])
        raise InputError(
            f"{flags} decides more than numbers in the program of this learner, so it cannot vary"
            " there. Start a command for each value"
        ) from error


def _train(
    parts: Callable[[Values], Parts],
    plan: Plan,
    together: Together,
    state: TrainState,
    keys: Key,
    trained: AnyLearner,
) -> None:
    """Trains runs that are at one step. `state` and `keys` have the seeds of all runs."""
    run = together.runs[0]
    devices = devices_for(trained, run)

    def step_of(values: Values) -> StepFn:
        learner, _, tx = parts(values)
        return make_step(grad_of(learner, devices=devices, chunk=plan.chunk), tx)

    measure = validation_by(plan, varied(lambda values: parts(values)[1]), run)
    best = plan.metric * plan.keeps_best

    def validate(state: PyTree) -> Mapping[str, Any]:
        return measure(parallel.local(state))

    missing = [each.evaluations("validation", plan.eval_every)[1] for each in together.runs]
    if any(missing):  # all of them, because a run that has ended is not here
        together.validate(run.steps, state, validate, best)
    chunks = loop(
        varied_step(step_of),
        task_stream(plan.sample, plan.tasks),
        keys,
        state,
        steps=run.steps,
        every=run.flags.log_every,
        devices=devices,
        on_compile=together.compiled,
    )
    options: dict[str, Any] = {"validate": validate, "eval_every": plan.eval_every, "best": best}
    together.watch(chunks, **options)


def _initial(
    parts: Callable[[Values], Parts],
    plan: Plan,
    keys: Key,
    values: Sequence[Values],
    start: Start,
) -> list[TrainState]:
    """The state before step 0 of each run, as a run alone has it.

    Raises:
        InputError: if the states do not fit into memory.
    """

    def one(pair: tuple[Key, Values]) -> TrainState:
        key, own = pair
        learner, _, tx = parts(own)
        return init_state(learner.init(key, plan.x), tx)

    refuse_too_large(jax.eval_shape(one, (keys[0], values[0])), len(keys) * len(values))
    pairs = jnp.concatenate([keys] * len(values)), _tiled(values, len(keys))
    states = _parts(len(values), jax.jit(lambda pairs: lax.map(one, pairs))(pairs))
    states = [state._replace(step=jnp.int32(0)) for state in states]
    return [started(state, start.init_from, start.init_except) for state in states]


def _tiled(values: Sequence[Values], seeds: int) -> Values:
    """The values of each run, `[runs * seeds]`."""
    return {
        name: jnp.repeat(jnp.stack([each[name] for each in values]), seeds) for name in values[0]
    }


def _joined(states: Sequence[TrainState], values: Values) -> TrainState:
    """The states of several runs as one, `[runs * seeds]`; its parameters have their values."""
    leaves: list[Any] = [_without_step(state) for state in states]
    joined = jax.tree.map(lambda *each: jnp.concatenate(each), *leaves)
    return joined._replace(step=states[0].step, params=Varied(values, joined.params))


def _split(runs: int, state: TrainState) -> list[TrainState]:
    """The states of the runs, without values: what `_joined` was made of."""
    state = parallel.local(state)
    rest = _without_step(state._replace(params=state.params.params))
    return [each._replace(step=state.step) for each in _parts(runs, rest)]


def _without_step(state: Any) -> Any:
    return state._replace(step=None)


def _parts(runs: int, tree: Any) -> list[Any]:
    """Equal parts of the leading axis."""

    def part(n: int, leaf: Any) -> Any:
        size = len(leaf) // runs
        return leaf[n * size : (n + 1) * size]

    return [jax.tree.map(partial(part, n), tree) for n in range(runs)]
