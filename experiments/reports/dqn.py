"""Report and pictures of the experiment `dqn`, from its result and its journals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.report.pictures import band
from jaxdl.runs.run import Run

SPLITS = ("train", "validation")
SOLVED = {"cartpole": 475.0, "gymnax:CartPole-v1": 475.0}
"""The mean return from which an environment counts as solved. Some environments have none."""

Lines = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""The result of `Run.metrics`, by memory and by split."""


def told_memory(name: str, config: Mapping[str, Any]) -> str:
    """The name of a memory with its size, for tables and pictures."""
    sizes = {"replay": config["capacity"], "short": config["short"]}
    return f"{name} ({sizes[name]:,})" if name in sizes else name


def solved(result: Mapping[str, Any], name: str) -> int | None:
    """The number of seeds that solve the task at the last step. None without a threshold."""
    threshold = SOLVED.get(result["config"]["env"])
    if threshold is None:
        return None
    return sum(value >= threshold for value in result["memories"][name]["return"]["values"])


def scores(part: Run, last: np.ndarray, steps: int) -> dict[str, Any]:
    """Scores of a memory: returns of the last step, and the stability of the second half."""
    batches, seen = (second_half(part.metrics(split), steps) for split in SPLITS)
    return {
        "return": seeds_summary(last),
        "batch_variance": seeds_summary(batches["td_variance"].mean(axis=0)),
        "held_out_variance": seeds_summary(seen["td_variance"].mean(axis=0)),
        "held_out_mean": seeds_summary(seen["td_mean"].mean(axis=0)),
        # One evaluation swings by nothing.
        "swing": seeds_summary(seen["return"].std(axis=0)) if len(seen["return"]) > 1 else None,
    }


def second_half(lines: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """The lines of a journal of the second half of training."""
    late = lines["step"] >= steps / 2
    return {name: values[late] for name, values in lines.items()}


def report(result: Mapping[str, Any]) -> str:
    """One row per memory, then settings, seeds and machine."""
    config, run = result["config"], result["run"]
    rows = [
        [
            told_memory(name, config),
            tables.interval(found["return"], digits=1),
            tables.by_seed(found["return"], digits=0),
            *([] if (count := solved(result, name)) is None else [f"{count} of {config['seeds']}"]),
            *(
                tables.interval(found[key], digits=2)
                for key in ("batch_variance", "held_out_variance", "held_out_mean")
            ),
            tables.interval(found["swing"], digits=1) if found["swing"] else "",
        ]
        for name, found in result["memories"].items()
    ]
    goal = ["solved"] if config["env"] in SOLVED else []
    header = [f"{config['env']}, memory", "return at the end", "by seed", *goal]
    header += ["var. of error, batches", "var., held out", "mean, held out", "swing of return"]
    options = [name for name in ("double", "dueling", "prioritized") if config[name]]
    notes = [
        f"{', '.join(['DQN', *options])}; {result['steps']:,} steps of {config['batch']}, and"
        f" {config['envs'] * config['plays']} transitions each;"
        f" {tables.seeds(config['seed'], config['seeds'])}; no batch norm",
        f"return: the greedy policy of the last step, {config['episodes']} episodes; errors and"
        " swing (standard deviation between evaluations) are of the second half of training",
    ]
    notes += unfinished(config, result["steps"])
    return "\n".join([tables.markdown(header, rows), *notes, tables.made_by(run)])


def unfinished(config: Mapping[str, Any], steps: int) -> list[str]:
    """The schedules that had not ended at the last step."""
    decay, explore = config["decay_steps"], config["explore_steps"]
    told = []
    if decay > steps:
        rising = " and --beta had risen" * config["prioritized"]
        told.append(f"the learning rate had fallen{rising} (--decay-steps {decay:,})")
    if explore > steps:
        told.append(f"exploration had fallen (--explore-steps {explore:,})")
    return [f"stopped before {schedule}" for schedule in told]


def draw_return(result: Mapping[str, Any], lines: Lines, figure: Any) -> None:
    """The greedy return: mean and range over seeds during training, and each seed at the end."""
    config = result["config"]
    curve, last = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    for i, (name, splits) in enumerate(lines.items()):
        label = told_memory(name, config)
        seen = splits["validation"]
        band(curve, seen["step"], seen["return"], i, label=label)
        values = result["memories"][name]["return"]["values"]
        last.plot(i + np.linspace(-0.15, 0.15, len(values)), values, f"C{i}o", alpha=0.8)
    if (threshold := SOLVED.get(config["env"])) is not None:
        for axis in (curve, last):
            axis.axhline(threshold, color="0.4", lw=1, ls="--")
        curve.annotate(f"solved: {threshold:.0f}", (0, threshold - 4), color="0.4", va="top")
    curve.set(xlabel="learning step", ylabel=f"return of {config['episodes']} greedy episodes")
    curve.set_title("while training: mean and range over seeds", fontsize="medium")
    handles = curve.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, title="memory (transitions)")
    last.set_xticks(range(len(lines)), list(lines))
    last.set_xlim(-0.5, len(lines) - 0.5)
    last.set_title("at the end, a mark per seed", fontsize="medium")


def draw_errors(result: Mapping[str, Any], lines: Lines, figure: Any) -> None:
    """Mean and variance of the error, on the batches and on the held-out transitions."""
    panels = figure.subplots(2, 2, sharex=True)
    titles = {"train": "batches that it learns from", "validation": "held-out random play"}
    for column, (split, title) in zip(panels.T, titles.items(), strict=True):
        for axis, key in zip(column, ("td_variance", "td_mean"), strict=True):
            for i, (name, splits) in enumerate(lines.items()):
                label = told_memory(name, result["config"])
                band(axis, splits[split]["step"], splits[split][key], i, label=label)
        column[0].set_title(title, fontsize="medium")
        column[0].set_yscale("log")
        column[1].axhline(0, color="0.6", lw=0.7)
        column[1].set_yscale("symlog", linthresh=0.1)
        column[1].set(xlabel="learning step")
    panels[0, 0].set(ylabel="variance of the error")
    panels[1, 0].set(ylabel="mean error")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, title="memory (transitions)")
    figure.suptitle("temporal-difference errors: mean and range over seeds", fontsize="medium")
