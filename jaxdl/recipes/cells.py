"""LSTM, GRU and plain RNN, compared on one task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, supervised
from jaxdl.models.linen import without_stats
from jaxdl.models.recurrent import Output, gru, lstm, rnn
from jaxdl.optim.schedules import cosine
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.config import Start, each_once
from jaxdl.runs.run import Run
from jaxdl.runs.weights import started
from jaxdl.train.evaluation import measure
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, LossFn, Metrics, Model, Params, Stream

CELLS = {"lstm": lstm, "gru": gru, "rnn": rnn}


class Task(NamedTuple):
    """The training data, the evaluation data and the loss of all nets.

    `validation` and `test` are pairs of stored examples and their targets. `transform` turns a
    stored example into the net's input. `baseline` is the loss of a net without memory.
    """

    stream: Stream
    validation: tuple[Any, Any]
    test: tuple[Any, Any]
    transform: Callable[[Any], Array]
    loss: LossFn
    out: int
    output: Output
    baseline: float


class Training(NamedTuple):
    """The training that all cells share.

    In the order of the fields: units, layers, Adam's learning rate and its decay, the largest norm
    of a gradient, run keys `[seeds]`, sequences per step, steps between validations, devices.
    """

    hidden: int
    layers: int
    lr: float
    decay_steps: int
    clip: float
    keys: Key
    batch: int
    eval_every: int
    devices: int


def training_of(config: Mapping[str, Any], devices: int) -> Training:
    """The training by the `flat` fields of a configuration, on `devices` devices (0 for all)."""
    names = ("hidden", "layers", "lr", "decay_steps", "clip", "batch", "eval_every")
    return Training(
        keys=run_keys(config["seed"], config["seeds"]),
        devices=parallel.count_devices(devices),
        **{name: config[name] for name in names},
    )


def check_cells(cells: Sequence[str], start: Start) -> None:
    """Validates that cells are known and occur once, and that weights are for one cell only.

    Raises:
        InputError: if not. The message names the field.
    """
    each_once("cell", cells, CELLS)
    if start.init_from is not None and len(cells) > 1:
        raise InputError(f"`init_from={start.init_from}` holds one net: choose one `cell=`")


def compare(
    run: Run, task: Task, config: Mapping[str, Any], start: Start
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Trains each cell of `config`, the `flat` fields of a configuration, in a part of the run.

    Returns:
        The content of result.json, and the `answers` of each cell.
    """
    training = training_of(config, run.flags.devices)
    params = {cell: train(run.part(cell), cell, task, training, start) for cell in config["cell"]}
    result = {
        "cells": scores(run, task, training, params),
        "baseline": task.baseline,
        "test_sequences": len(task.test[1]),
        "batch_norm": "none",
        "config": config,
    }
    return result, answers(task, training, params)


def net(cell: str, task: Task, training: Training, output: Output | None = None) -> Model:
    """The net with this cell. With `output="all"` the same parameters answer after each step."""
    options: dict[str, Any] = {"layers": training.layers, "output": output or task.output}
    return CELLS[cell](training.hidden, task.out, **options)


def train(run: Run, cell: str, task: Task, training: Training, start: Start) -> Params:
    """The last parameters of all seeds."""
    model, axis = net(cell, task, training), parallel.axis_name(training.devices)
    evaluate = evaluation(cell, task, training)
    adam = optax.adam(cosine(training.lr, training.decay_steps))
    tx = optax.chain(optax.clip_by_global_norm(training.clip), adam)
    like = task.transform(task.test[0][0])[None]
    state = init_states(lambda key: model.init(key, like), training.keys, tx)
    return run.train(
        make_step(over_devices(supervised(model, task.loss), axis), tx),
        task.stream,
        training.keys,
        run.restore(started(state, start.init_from, start.init_except)),
        validate=lambda state: evaluate(state.params, {}, *task.validation),
        eval_every=training.eval_every,
        devices=training.devices,
    ).params


def evaluation(cell: str, task: Task, training: Training) -> Callable[..., Metrics]:
    """`(params [seeds], {}, examples, targets) -> metrics [seeds]`."""
    model, devices = without_stats(net(cell, task, training)), training.devices
    return measure(model, task.loss, task.transform, devices=devices)


def scores(
    run: Run, task: Task, training: Training, params: Mapping[str, Params]
) -> dict[str, dict[str, Any]]:
    """Per cell: summaries over seeds of each test metric, and `solved_at`."""
    found: dict[str, dict[str, Any]] = {}
    for cell, each in params.items():
        metrics = evaluation(cell, task, training)(each, {}, *task.test)
        found[cell] = {name: seeds_summary(values) for name, values in metrics.items()}
        found[cell]["solved_at"] = solved_at(run.part(cell), task)
    return found


def solved_at(run: Run, task: Task) -> list[int | None]:
    """Per seed, the step of the first validation with a loss below a tenth of the baseline's."""
    lines = run.metrics("validation")
    below = lines["loss"] < task.baseline / 10
    return [int(lines["step"][row.argmax()]) if row.any() else None for row in below.T]


def answers(task: Task, training: Training, params: Mapping[str, Params]) -> dict[str, Array]:
    """The outputs of each cell's first seed, after each step of the first test sequence."""
    x = task.transform(task.test[0][0])[None]
    found = {}
    for cell, each in params.items():
        apply = jax.jit(net(cell, task, training, "all").apply)
        found[cell] = apply(jax.tree.map(lambda leaf: leaf[0], each), x)[0]
    return found
