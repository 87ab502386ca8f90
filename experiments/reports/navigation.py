"""Report and pictures of the experiment `navigation`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reports._departures import departures
from jaxdl.report import tables
from jaxdl.report.intervals import mean_ci95, seeds_summary
from jaxdl.report.pictures import band
from jaxdl.rl.maml_trpo import Recorded
from jaxdl.rl.point import SPEED
from jaxdl.runs.run import Run
from jaxdl.train.loop import per_seed
from jaxdl.types import Params

FIGURE_KEY = 1_000_003
"""A key that no training seed has."""

DEPTHS = (0, 1, 2, 3)
"""Gradient steps after which returns are reported."""

PAPER = (-40.41, -11.68, -3.33, -3.23)
"""Table 4 of the paper: MAML after each of these numbers of steps, on 40 goals."""

PAPER_CONTEXT = (-42.42, -13.90, -5.17, -3.18)
"""The same table: inner steps adapt a context vector alone."""

METHODS = {
    "maml": "MAML",
    "pretrained": "pretrained on all tasks",
    "random": "untrained",
    "oracle": "oracle, sees the goal",
}


def report(result: dict[str, Any]) -> str:
    """The table, then settings, seeds, deviations and machine."""
    config, run = result["config"], result["run"]
    rows = []
    for name, by_depth in result["methods"].items():
        rate = result["inner_rates"].get(name)
        cells = [
            f"{tables.interval(found)} ({float(found['ci95_tasks']):.2f})" for found in by_depth
        ]
        cells += [""] * (len(DEPTHS) - len(cells))
        rows.append([METHODS[name], "" if rate is None else f"{rate:g}", *cells])
        if name == "maml":
            rows.append(["MAML, paper", "0.1", *(f"{value:.2f}" for value in PAPER)])
            rows.append(["context vector, paper", "", *(f"{v:.2f}" for v in PAPER_CONTEXT)])
    header = [
        "mean return, ± 95 % over seeds (over goals)",
        "inner rate",
        *(f"{depth} step{'s' * (depth != 1)}" for depth in DEPTHS),
    ]
    notes = [
        f"{run['steps']:,} meta-iterations of {config['tasks']} goals;"
        f" {tables.seeds(config['seed'], config['seeds'])}, in brackets over"
        f" {config['test_tasks']} test goals, {config['test_trajectories']} trajectories each;"
        " batch norm: none",
        "chosen on validation goals: MAML's parameters, of meta-iterations"
        f" {' '.join(map(str, result['chosen_steps'].get('maml', []))) or 'none'}, and the inner"
        " rates of pretrained and untrained; rates are halved from the second inner step on",
        *deviations(config, run["steps"]),
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown(header, rows), *notes])


RECIPE = {
    "tasks": 20,
    "trajectories": 20,
    "inner_steps": 1,
    "inner_lr": 0.1,
    "max_kl": 0.01,
    "discount": 0.99,
    "hidden": 100,
}
"""The settings of the paper and of its code."""


def deviations(config: dict[str, Any], steps: int) -> list[str]:
    """The differences from the paper."""
    found = [
        "reward: minus the distance, as in the authors' code; the paper says its square, with which"
        " no policy that stays near the start could earn -40 in 100 steps",
        f"up to {steps:,} meta-iterations, in the paper 500, and the best of them by validation"
        " goals, in the paper by the return in training; products with the Hessian are exact and"
        " over a part of the steps, in the paper by finite differences",
        "baseline: fitted to the same trajectories whose advantages it makes; the authors' code"
        " fits it to those of before",
        "KL constraint: counts tasks equally; the authors' code counts samples, so that tasks with"
        " longer trajectories weigh more",
    ]
    found += departures(config, RECIPE, tuple(RECIPE))
    return [f"deviation: {each.removesuffix('.')}" for each in found]


def summary(found: np.ndarray) -> list[dict[str, Any]]:
    """Per number of steps: mean and interval over seeds, and half the interval over tasks."""
    return [
        seeds_summary(of_depth.mean(axis=1))
        | {"ci95_tasks": float(mean_ci95(of_depth.mean(axis=0))[1])}
        for of_depth in np.moveaxis(found, 2, 0)
    ]


def draw_pictures(
    run: Run, params: dict[str, Params], result: dict[str, Any], play: Callable[..., Recorded]
) -> None:
    """Draws paths in two tasks before and after steps, returns by steps, and learning curves.

    `play(keys [tasks], params, goals [tasks, 2])` plays MAML's policy.
    """
    if "maml" in params:
        goals = jnp.array([[0.35, 0.3], [-0.4, 0.1]])
        keys = jax.random.split(jax.random.key(FIGURE_KEY), len(goals))
        played = play(keys, per_seed(params["maml"])[0], goals)
        run.picture("paths", partial(draw_paths, goals, played), size=(11, 6))
    run.picture("returns", partial(draw_returns, result), size=(6, 4.5))
    curves = {name: run.part(name).metrics("train") for name in params if name != "random"}
    run.picture("learning_curve", partial(draw_curve, curves), size=(7, 4.5))


def draw_paths(goals: Any, played: Recorded, figure: Any) -> None:
    """One row per task: ten paths before the first step and after each, from start to goal.

    `goals` `[tasks, 2]`; `played` as `maml_trpo.play` returns it, with a leading `[tasks]`.
    """
    support, query = played
    axes = figure.subplots(len(goals), len(DEPTHS), sharex=True, sharey=True, squeeze=False)
    for task, row in enumerate(axes):
        for depth, axis in enumerate(row):
            last = depth == len(DEPTHS) - 1
            samples = [
                leaf[task] if last else leaf[task, depth] for leaf in (query, support)[not last]
            ]
            obs, action, reward, mask, _ = map(np.asarray, samples)
            for i in range(min(10, obs.shape[1])):
                alive = mask[:, i] == 1
                end = obs[alive, i][-1] + SPEED * np.clip(action[alive, i][-1], -1, 1)
                path = np.concatenate([obs[alive, i], end[None]])
                axis.plot(*path.T, lw=0.8, color=f"C{i}", alpha=0.8)
            axis.plot(0, 0, "ko", markersize=5, label="start")
            axis.plot(*np.asarray(goals[task]), "k*", markersize=13, label="goal")
            axis.set_aspect("equal")
            axis.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7))
            axis.grid(alpha=0.3)
            steps = "before" if depth == 0 else f"after {depth} step{'s' * (depth > 1)}"
            axis.set_title(f"{steps}: {reward.sum(axis=0).mean():.1f}", fontsize="medium")
    figure.suptitle("MAML: ten paths of each policy, and its mean return", fontsize="medium")
    axes[0, 0].legend(loc="lower left", fontsize="small")


def draw_returns(result: dict[str, Any], figure: Any) -> None:
    """The paper's figure: the return by gradient steps. Minus the return is on a log axis."""
    axis = figure.subplots()
    for i, (name, found) in enumerate(result["methods"].items()):
        title = METHODS[name]
        mean = np.array([each["mean"] for each in found])
        half = np.array([each["ci95"] or 0 for each in found])
        if name == "oracle":
            axis.axhline(-mean[0], color=f"C{i}", ls="-.", label=title)
            continue
        axis.errorbar(DEPTHS, -mean, half, color=f"C{i}", marker="osD"[i], capsize=3, label=title)
    axis.plot(DEPTHS, -np.array(PAPER), "k:", marker="x", label="MAML, paper")
    axis.set_xticks(DEPTHS)
    minus_on_log_scale(axis, [0.5, 1, 2, 3, 5, 10, 20, 40, 80])
    axis.set(xlabel="gradient steps", ylabel="mean return (log scale), ± 95 % over seeds")
    axis.legend(fontsize="small")


def minus_on_log_scale(axis: Any, ticks: list[float]) -> None:
    """Formats an axis of minus the returns, so that larger returns are higher."""
    axis.set_yscale("log")
    axis.invert_yaxis()
    axis.set_yticks(ticks, [f"-{tick}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def draw_curve(curves: dict[str, Any], figure: Any) -> None:
    """Returns on training goals by iteration: a line for the mean, a band for the seeds' range."""
    axis = figure.subplots()
    shown = [("maml", "before", "MAML, before the inner step"), ("maml", "after", "after it")]
    shown += [(name, "after", METHODS[name]) for name in ("pretrained", "oracle")]
    for color, (name, column, label) in enumerate(shown):
        if name in curves:
            band(axis, curves[name]["step"], -curves[name][column], color, label=label)
    minus_on_log_scale(axis, [0.5, 1, 2, 5, 10, 20, 40, 80])
    axis.set(xlabel="meta-iteration", ylabel="mean return on training goals (log scale)")
    axis.legend(fontsize="small")
