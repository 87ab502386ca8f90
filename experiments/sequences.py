"""LSTM beside GRU beside a plain RNN: MNIST row by row, and two tasks that need a long memory.

`mnist-rows` reads an image as 28 rows of 28 pixels. `adding` shows pairs of a number and a mark and
asks for the sum of the two marked numbers (Hochreiter, Schmidhuber 1997); who always answers 1 has
an error of 1/6. `copy` shows ten symbols and asks for them after a delay. All cells have the same
width, data, optimiser and number of steps. The last parameters are reported, nothing was chosen on
test.

Command: scripts/run sequences [--preset adding] [--seeds 3]
Runtime: 3 seeds on 2 CPU cores that other work shared: rows 14 minutes, adding 17
Result: 3 seeds, test: MNIST rows 99.03 ± 0.37 % (LSTM), 98.98 ± 0.24 (GRU), 97.57 ± 0.17 (RNN);
    squared error of adding 0.00027 (LSTM), 0.00015 (GRU), 0.149 (RNN, not learnt); copy is not yet
    measured
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import parallel
from jaxdl.data.augment import normalise
from jaxdl.data.epochs import epochs
from jaxdl.data.sets.images import STATISTICS, image_splits
from jaxdl.data.sets.sequences import ADDING_BASELINE, adding, copying, copying_baseline
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, supervised
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.linen import without_stats
from jaxdl.models.recurrent import Output, gru, lstm, rnn
from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.report.pictures import band
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run
from jaxdl.runs.weights import started
from jaxdl.train.evaluation import measure
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Array, Batch, Key, LossFn, Metrics, Model, Params, Stream

CELLS = {"lstm": lstm, "gru": gru, "rnn": rnn}
SYMBOLS, COUNT = 8, 10
"""Of the copy task."""
TEST_KEY, VALIDATION_KEY = 1_000_001, 1_000_002
"""Keys apart from all training seeds: every cell and seed meets the same examples."""


@dataclasses.dataclass(frozen=True)
class Config:
    task: Literal["mnist-rows", "adding", "copy"] = "mnist-rows"
    """What is learnt."""
    cell: tuple[Literal["lstm", "gru", "rnn"], ...] = ("lstm", "gru", "rnn")
    """The nets beside one another, each a part of the run."""
    length: int = 100
    """Steps of an adding problem, or between the symbols and their recall in the copy task."""
    hidden: int = 128
    """Width of the state."""
    layers: int = 1
    """Layers on each other."""
    lr: float = 0.003
    """Adam's rate at the start."""
    decay_steps: int = 4000
    """Steps in which the rate falls to 0 along a cosine; 0 leaves it as it is."""
    clip: float = 1.0
    """Longest gradient, by its norm."""
    steps: int = 4000
    """Training steps of each cell."""
    batch: int = 128
    """Sequences a step, over all devices."""
    validation: int = 5000
    """Sequences for the learning curve: the last training images, or as many drawn ones."""
    test: int = 10_000
    """Drawn sequences of the test; MNIST has its own."""
    eval_every: int = 200
    """Steps between validations, a multiple of `log_every`."""
    init_from: Path | None = None
    """Start from these weights: a .npz of weights, or a run's directory, of whose seeds
    each starts one here. They are of one net: choose one `cell`."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: a head of other classes, say."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds, from `seed` upward, train in one program."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


_LONG = Config(hidden=64, batch=64, validation=1000)
PRESETS = {
    "mnist-rows": Config(),
    "adding": dataclasses.replace(_LONG, task="adding"),
    "copy": dataclasses.replace(_LONG, task="copy", hidden=128),
}


class Task(NamedTuple):
    """What the nets learn from and are judged by; `seen` makes a stored example their input."""

    stream: Stream
    validation: tuple[Any, Any]
    test: tuple[Any, Any]
    seen: Any
    loss: LossFn
    out: int
    output: Output
    baseline: float
    """The loss of who has no memory."""


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    with open_run("sequences", config, label=config.task) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "steps", "batch", "seeds", "hidden", "layers", "validation", "test")
    at_least(config, 1, "eval_every")
    at_least(config, 2, "length")
    at_least(config, 0, "decay_steps")
    at_least(config, 0, "seed", most=TEST_KEY - 1 - config.seeds)
    above_zero(config, "lr", "clip")
    at_least(config.run, 1, "log_every")
    if not config.cell or len(set(config.cell)) < len(config.cell):
        raise InputError("--cell: name each of lstm, gru and rnn at most once, and one at least")
    if config.init_from is not None and len(config.cell) > 1:
        raise InputError(f"--init-from {config.init_from} holds one net: choose one --cell")
    evaluated_at_log_points(config)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Training of each cell, its test, and the pictures."""
    task = rows(config) if config.task == "mnist-rows" else drawn(config)
    params: dict[str, Params] = {
        cell: train(config, run.part(cell), cell, task) for cell in config.cell
    }
    result: dict[str, Any] = {"cells": {}}
    for cell, each in params.items():
        found = judge(config, cell, task)(each, {}, *task.test)
        result["cells"][cell] = {name: seeds_summary(values) for name, values in found.items()}
        result["cells"][cell]["solved_at"] = solved_at(run.part(cell), task)
    about = {
        "baseline": task.baseline,
        "test_sequences": len(task.test[1]),
        "batch_norm": "none",
        "config": dataclasses.asdict(config),
    }
    run.picture("learning_curve", partial(draw_curve, run, config, task), size=(6, 4))
    run.picture("sample", partial(draw_sample, config, task, params), size=(9, 3.6))
    return run.finish({**result, **about})


def rows(config: Config) -> Task:
    """MNIST as sequences of 28 rows; the last training images are held out."""
    data = image_splits("mnist", validation=config.validation, data_dir=config.data_dir)
    validation, test = (
        (jnp.asarray(data[part].images), jnp.asarray(data[part].labels))
        for part in ("validation", "test")
    )

    def seen(image: Array) -> Array:
        return normalise(image, *STATISTICS["mnist"])[..., 0]

    def transform(key: Key, image: Array) -> Array:
        del key  # no augmentation
        return seen(image)

    return Task(
        epochs(*data["train"][:2], batch=config.batch, transform=transform, classes=10),
        validation,
        test,
        seen,
        cross_entropy,
        out=10,
        output="last",
        baseline=float(np.log(10)),
    )


def drawn(config: Config) -> Task:
    """The adding problem or the copy task; validation and test are drawn once."""
    add = config.task == "adding"
    sizes = {"symbols": SYMBOLS, "count": COUNT}
    sample = adding(length=config.length) if add else copying(delay=config.length, **sizes)
    draw = jax.jit(jax.vmap(sample))

    def some(seed: int, count: int) -> tuple[Array, Array]:
        batch: Batch = draw(jax.random.split(jax.random.key(seed), count))
        return batch.x, batch.y

    return Task(
        task_stream(sample, config.batch),
        some(VALIDATION_KEY, config.validation),
        some(TEST_KEY, config.test),
        lambda x: x,
        mean_squared_error if add else recall,
        out=1 if add else SYMBOLS + 1,
        output="last" if add else "all",
        baseline=ADDING_BASELINE if add else copying_baseline(delay=config.length, **sizes),
    )


def recall(prediction: Array, target: Array, weight: Array | None = None) -> tuple[Array, Metrics]:
    """Cross-entropy over all steps; the accuracy is that of the symbols to be said again."""
    loss, metrics = cross_entropy(prediction, target, weight)
    asked = cross_entropy(prediction[:, -COUNT:], target[:, -COUNT:], weight)[1]
    return loss, {**metrics, "accuracy": asked["accuracy"]}


def net(config: Config, cell: str, task: Task, output: Output | None = None) -> Model:
    """The net with this cell; with `output="all"` the same parameters answer after each step."""
    options = {"layers": config.layers, "output": output or task.output}
    return CELLS[cell](config.hidden, task.out, **options)


def judge(config: Config, cell: str, task: Task) -> Any:
    """`(params [seeds], {}, examples, answers) -> metrics [seeds]`."""
    return measure(without_stats(net(config, cell, task)), task.loss, task.seen)


def train(config: Config, run: Run, cell: str, task: Task) -> Params:
    """The last parameters of all seeds."""
    devices = parallel.count_devices(config.run.devices)
    axis = parallel.axis_name(devices)
    model, measured = net(config, cell, task), judge(config, cell, task)
    decay = optax.cosine_decay_schedule(config.lr, max(config.decay_steps, 1))
    adam = optax.adam(decay if config.decay_steps else config.lr)
    tx = optax.chain(optax.clip_by_global_norm(config.clip), adam)
    keys = run_keys(config.seed, config.seeds)
    like = task.seen(task.test[0][0])[None]
    state = init_states(lambda key: model.init(key, like), keys, tx)
    state = run.restore(started(state, config.init_from, config.init_except))
    return run.train(
        make_step(over_devices(supervised(model, task.loss), axis), tx),
        task.stream,
        keys,
        state,
        validate=lambda state: measured(state.params, {}, *task.validation),
        eval_every=config.eval_every,
        tasks=config.batch,
        devices=devices,
    ).params


def solved_at(run: Run, task: Task) -> list[int | None]:
    """For each seed the first validation with a loss below a tenth of the baseline's."""
    lines = run.metrics("validation")
    below = lines["loss"] < task.baseline / 10
    return [int(lines["step"][row.argmax()]) if row.any() else None for row in below.T]


def report(result: dict[str, Any]) -> str:
    """The result as a table, and what the numbers depend on."""
    config, run = result["config"], result["run"]
    rows = []
    for cell, found in result["cells"].items():
        percent = "accuracy" in found
        score = found["accuracy" if percent else "loss"]
        shown = {"scale": 100, "digits": 2} if percent else {"scale": 1, "digits": 5}
        solved = " ".join("never" if at is None else f"{at:,}" for at in found["solved_at"])
        mean, each = (f(score, **shown) for f in (tables.interval, tables.by_seed))
        rows.append([cell, mean, each, f"{found['loss']['mean']:.5f}", solved])
    title = config["task"] + ("" if config["task"] == "mnist-rows" else f" {config['length']}")
    what = "error" if config["task"] == "adding" else "accuracy in %"
    header = [f"{title}, test", f"{what}, ± 95 % over seeds", "by seed", "loss", "solved at step"]
    notes = [
        f"{run['steps']:,} steps of {config['batch']} sequences, {config['hidden']} units,"
        f" {config['layers']} layer(s); {tables.seeds(config['seed'], config['seeds'])};"
        f" {result['test_sequences']:,} test sequences, the last parameters, no batch norm",
        f"solved: validation loss below a tenth of {result['baseline']:.4f}, the loss without"
        f" memory; validated every {config['eval_every']} steps",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown(header, rows), *notes])


def draw_curve(run: Run, config: Config, task: Task, figure: Any) -> None:
    """The validation of the cells by step: mean over seeds, and their range as a band."""
    axis = figure.subplots()
    images = config.task == "mnist-rows"
    for color, cell in enumerate(config.cell):
        lines = run.part(cell).metrics("validation")
        values = 100 - 100 * lines["accuracy"] if images else lines["loss"]
        style = {"label": cell.upper(), "marker": "o", "markersize": 3}
        band(axis, lines["step"], values, color, **style)
    if not images:
        axis.axhline(task.baseline, color="0.5", ls="--", label="without memory")
    names = {"mnist-rows": "error in %", "adding": "squared error", "copy": "cross-entropy in nats"}
    axis.set(xlabel="step", ylabel=f"validation {names[config.task]}", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend()


def draw_sample(config: Config, task: Task, params: dict[str, Params], figure: Any) -> None:
    """One test sequence, and what each cell (first seed) answers after each of its steps."""
    x = task.seen(task.test[0][0])
    target = np.asarray(task.test[1][0])
    answers = {}
    for cell, each in params.items():
        apply = jax.jit(net(config, cell, task, "all").apply)
        answers[cell] = np.asarray(apply(per_seed(each)[0], x[None])[0])
    if config.task == "copy":
        shown = {"target": target} | {cell: each.argmax(1) for cell, each in answers.items()}
        axes = figure.subplots(len(shown), sharex=True)
        for axis, (name, row) in zip(axes, shown.items(), strict=True):
            axis.imshow(row[None], aspect="auto", cmap="tab10", vmin=0, vmax=9)
            axis.set(yticks=[], ylabel=name)
        axis.set_xlabel(f"step; symbols to be said in the last {COUNT}")
        return
    left, right = figure.subplots(1, 2)
    if config.task == "adding":
        numbers, marks = np.asarray(x).T
        left.plot(numbers, ".", color="0.7")
        left.plot(np.flatnonzero(marks), numbers[marks > 0], "k^", label="marked")
        left.set(xlabel="step", ylabel="number", title=f"sum of the marked: {target[0]:.3f}")
        left.legend()
        right.axhline(target[0], color="0.5", ls="--")
        right.set(ylabel="answer so far")
    else:
        left.imshow(x, cmap="gray_r")
        left.set(title=f"a {target}, read from the top", ylabel="row", xticks=[])
        answers = {cell: np.asarray(jax.nn.softmax(e))[:, target] for cell, e in answers.items()}
        right.set(ylabel=f"probability of {target}")
    for cell, answer in answers.items():
        right.plot(answer, label=cell.upper())
    right.set(xlabel="row" if config.task == "mnist-rows" else "step")
    right.legend()


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
