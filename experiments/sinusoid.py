"""MAML on sine waves: the regression experiment of the MAML paper (section 5.1, arXiv:1703.03400).

A task is a sine wave of random amplitude and phase; K points of it are given, the rest is asked.
The recipe is that of the authors' code: 70,000 meta-steps of 25 tasks, K = 10, one inner step of
size 0.001, Adam 0.001; but the kernels start by LeCun's rule (`--init code` for theirs). Beside it
stands the paper's baseline: the same net trained on all tasks jointly, then fine-tuned on the K
points with the step size that is best on validation tasks.

Command: scripts/run sinusoid
Runtime: about a minute on a CPU core; 3 seeds take 96 s
Result: mean squared error on 5-shot tasks after 1 / 5 / 10 steps, see README.md
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import parallel
from jaxdl.data.sets.sinusoid import sinusoid, sinusoid_task
from jaxdl.grads import over_tasks
from jaxdl.losses import mean_squared_error
from jaxdl.meta.base import evaluate
from jaxdl.recipes.few_shot import maml_of_sines
from jaxdl.report import tables
from jaxdl.report.intervals import mean_ci95, seeds_summary
from jaxdl.report.pictures import band
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least
from jaxdl.runs.run import Run, RunFlags, open_run
from jaxdl.runs.weights import started
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Array, MetaLearner, Params

DEPTHS = (0, 1, 5, 10)
SHOTS = (5, 10, 20)
PAPER = {1: 0.67, 5: 0.38, 10: 0.35}
"""Table 2 of the paper: 5-shot error of MAML after so many steps, on 600 tasks."""
PAPER_PRETRAINED = {1: 2.41, 5: 2.23, 10: 2.19}
FINE_TUNING_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds, the same for every learner and seed."""


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 70_000
    """Meta-training steps."""
    tasks: int = 25
    """Tasks a step."""
    shots: int = 10
    """Points given, and points asked, in a training task."""
    init: Literal["lecun", "code"] = "lecun"
    """How the kernels start: LeCun's normal, or as in the authors' code, a normal of standard
    deviation 0.01, from which one seed in five hardly learns."""
    inner_steps: int = 1
    """Gradient steps inside a training task."""
    inner_lr: float = 0.001
    """Their size. The paper prints 0.01; its code uses 0.001, with which ten steps stay stable."""
    lr: float = 0.001
    """Adam's step size outside."""
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact"
    """How the meta-gradient passes through the inner gradient."""
    test_tasks: int = 6000
    """Tasks of the final evaluation."""
    init_from: Path | None = None
    """Start both trainings from these weights: a .npz of weights, or a run's directory, of
    whose seeds each starts one here."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: the last one, say."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds, from `seed` upward, train in one program."""
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=500))


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    parallel.one_thread()
    with open_run("sinusoid", config) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is compiled."""
    at_least(config, 1, "steps", "tasks", "shots", "seeds")
    at_least(config, 0, "inner_steps")
    at_least(config, 2, "test_tasks")
    at_least(config, 0, "seed", most=TEST_KEY - 1 - config.seeds)
    above_zero(config, "inner_lr", "lr")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Both trainings, their evaluation and the pictures."""
    learner = learner_of(config, config.inner_lr)
    joint = learner_of(config, config.inner_lr, inner_steps=0)
    params = train(config, run, learner)
    pretrained = train(config, run.part("pretrained"), joint)

    rate = best_fine_tuning_rate(config, pretrained)
    fine_tuned = learner_of(config, rate)
    result = {
        "maml": errors(config, learner, params),
        "pretrained": errors(config, fine_tuned, pretrained),
        "fine_tuning_rate": rate,
        "paper": PAPER,
        "split": "test tasks drawn anew from the training distribution",
        "batch_norm": "none",
        "deviations": [
            "kernels start by LeCun's rule; in the code with a standard deviation of 0.01"
        ]
        if config.init == "lecun"
        else [],
        "config": dataclasses.asdict(config),
    }
    draw_pictures(run, learner, params, fine_tuned, pretrained)
    return run.finish(result)


def learner_of(
    config: Config, inner_lr: float | Array, inner_steps: int | None = None
) -> MetaLearner:
    """MAML on the paper's net; without inner steps it is joint training."""
    return maml_of_sines(
        init=config.init,
        inner_lr=inner_lr,
        inner_steps=config.inner_steps if inner_steps is None else inner_steps,
        estimator=config.estimator,
    )


def train(config: Config, run: Run, learner: MetaLearner) -> Params:
    """Meta-trains all seeds in one program; the parameters have a leading axis `[seeds]`."""
    devices = parallel.count_devices(config.run.devices)
    axis = parallel.axis_name(devices)
    tx = optax.adam(config.lr)
    step = make_step(over_tasks(learner.grad, axis_name=axis), tx)
    stream = task_stream(sinusoid(shots=config.shots, queries=config.shots), config.tasks)

    keys = run_keys(config.seed, config.seeds)
    state = init_states(lambda key: learner.init(key, jnp.zeros((1, 1))), keys, tx)
    state = run.restore(started(state, config.init_from, config.init_except))
    state = run.train(step, stream, keys, state, tasks=config.tasks, devices=devices)
    return state.params


def errors(config: Config, learner: MetaLearner, params: Params) -> list[dict[str, Any]]:
    """For each seed: mean, 95 % interval and median of the error, by shots and depth."""
    tables: list[dict[str, Any]] = [{} for _ in per_seed(params)]
    for shots in SHOTS:
        sample = sinusoid(shots=shots, queries=shots)
        run = evaluate(
            learner, mean_squared_error, sample, episodes=config.test_tasks, depths=DEPTHS
        )
        for table, each in zip(tables, per_seed(params), strict=True):
            values = np.asarray(run(jax.random.key(TEST_KEY), each)["loss"])
            for depth, row in zip(DEPTHS, values, strict=True):
                mean, half = mean_ci95(row)
                median = float(np.median(row))
                table[f"{shots}-shot/{depth}"] = {"mean": mean, "ci95": half, "median": median}
    return tables


def best_fine_tuning_rate(config: Config, params: Params) -> float:
    """The step size with the lowest 5-shot error after ten steps, on validation tasks."""
    sample = sinusoid(shots=5, queries=5)
    key = jax.random.key(VALIDATION_KEY)

    def error(rate: Array) -> Array:
        learner = learner_of(config, rate)
        run = evaluate(learner, mean_squared_error, sample, episodes=600, depths=(10,))
        return jnp.mean(jax.vmap(lambda each: run(key, each)["loss"])(params))

    found = np.asarray(jax.lax.map(error, jnp.asarray(FINE_TUNING_RATES)))
    return FINE_TUNING_RATES[int(np.nanargmin(np.where(np.isfinite(found), found, np.inf)))]


def report(result: dict[str, Any]) -> str:
    """The result as a table: means over seeds, intervals over seeds and over tasks, medians."""
    run, config, seeds, rows = result["run"], result["config"], len(result["maml"]), []
    over = "seeds" if seeds > 1 else "tasks"

    def cell(of_depth: list[dict[str, Any]]) -> tuple[str, str]:
        """The mean with its interval and the median, and half the interval over tasks."""
        half, median = (
            np.mean([float(each[key]) for each in of_depth]) for key in ("ci95", "median")
        )
        found = seeds_summary([each["mean"] for each in of_depth])
        shown = tables.interval(found if seeds > 1 else {**found, "ci95": half}, digits=3)
        return f"{shown} ({median:.3f})", f"± {half:.3f}"

    for name, paper in (("maml", PAPER), ("pretrained", PAPER_PRETRAINED)):
        for shots in SHOTS:
            places = [f"{shots}-shot/{depth}" for depth in DEPTHS]
            cells = [cell([each[place] for each in result[name]]) for place in places]
            title = f"{name} {shots}-shot"
            rows.append([title, *(shown for shown, _ in cells)])
            rows += [[f"{title}, over tasks", *(half for _, half in cells)]] * (seeds > 1)
        rows.append([f"{name} 5-shot, paper", "", *(f"{value:.2f}" for value in paper.values())])
    header = [f"mean squared error, ± 95 % over {over} (median)", *(f"{d} steps" for d in DEPTHS)]
    notes = [
        *result["deviations"],
        f"{run['steps']:,} steps; {tables.seeds(config['seed'], seeds)}; {config['test_tasks']:,}"
        " test tasks; no batch norm",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown(header, rows), *notes])


def draw_pictures(
    run: Run,
    learner: MetaLearner,
    params: Params,
    fine_tuned: MetaLearner,
    pretrained: Params,
) -> None:
    """The paper's figure 2 (one task, before and after adaptation) and the learning curve."""
    key = jax.random.key(FIGURE_KEY)
    amplitude, phase = sinusoid_task(key)
    support = sinusoid(shots=5, queries=1)(key).support
    x = jnp.linspace(-5, 5, 200)[:, None]

    def draw_task(figure: Any) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, title, each, start in (
            (axes[0], "MAML", learner, params),
            (axes[1], "pretrained, fine-tuned", fine_tuned, pretrained),
        ):
            axis.plot(x, amplitude * jnp.sin(x - phase), color="0.8", lw=5, label="true wave")
            for steps, color in ((0, "C2"), (1, "C0"), (10, "C1")):
                adapted = each.adapt(key, per_seed(start)[0], support, steps)
                label = "before" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
                axis.plot(x, each.predict(adapted, x), color, label=label)
            axis.plot(support.x, support.y, "k^", label="5 given points")
            axis.set(title=title, xlabel="x")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

    def draw_curve(figure: Any) -> None:
        axis = figure.subplots()
        parts = {"MAML, after adaptation": run, "joint training": run.part("pretrained")}
        for color, (name, part) in enumerate(parts.items()):
            lines = part.metrics("train")
            band(axis, lines["step"], lines["loss"], color, label=name)
        axis.set(xlabel="meta-step", ylabel="squared error", yscale="log")
        axis.legend()

    run.picture("task", draw_task, size=(9, 4.2))
    run.picture("learning_curve", draw_curve, size=(6, 4))


if __name__ == "__main__":
    cli.command_line(main, Config)
