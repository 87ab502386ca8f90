"""Report and pictures of the experiment `sinusoid`."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl.recipes.choice import name_of
from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.report.pictures import band
from jaxdl.runs.run import Run
from jaxdl.train.loop import per_seed
from jaxdl.types import Array, Batch, Key, MetaLearner, Params

DEPTHS = (0, 1, 5, 10)
SHOTS = (5, 10, 20)
PAPER = {1: 0.67, 5: 0.38, 10: 0.35}
"""Table 2 of the paper: 5-shot error of MAML after so many steps, on 600 tasks."""
PUBLISHED = {"maml": PAPER, "pretrained": {1: 2.41, 5: 2.23, 10: 2.19}}
"""The same by the names of the result."""


def depths_of(config: dict[str, Any]) -> tuple[int, ...]:
    """Inner steps of the test: those of the paper, and those of training if they are others."""
    return tuple(sorted({*DEPTHS, config.get("inner_steps") or 0}))


def report(result: dict[str, Any]) -> str:
    """The result as a table: means over seeds, intervals over seeds and over tasks, medians."""
    run, config, rows = result["run"], result["config"], []
    learner = name_of(config)
    seeds = len(result[learner])
    over = "seeds" if seeds > 1 else "tasks"
    depths = [d for d in depths_of(config) if f"{SHOTS[0]}-shot/{d}" in result[learner][0]]

    def cell(of_depth: list[dict[str, Any]]) -> tuple[str, str]:
        """The mean with its interval and the median, and half the interval over tasks."""
        half, median = (
            np.mean([float(each[key]) for each in of_depth]) for key in ("ci95", "median")
        )
        found = seeds_summary([each["mean"] for each in of_depth])
        shown = tables.interval(found if seeds > 1 else {**found, "ci95": half}, digits=3)
        return f"{shown} ({tables.number(float(median), 3)})", f"± {tables.number(float(half), 3)}"

    for name in (learner, "pretrained"):
        for shots in SHOTS:
            places = [f"{shots}-shot/{depth}" for depth in depths]
            cells = [cell([each[place] for each in result[name]]) for place in places]
            title = f"{name} {shots}-shot"
            rows.append([title, *(shown for shown, _ in cells)])
            rows += [[f"{title}, over tasks", *(half for _, half in cells)]] * (seeds > 1)
        if name in PUBLISHED and (name, config.get("estimator")) != ("maml", "first-order"):
            values = [f"{PUBLISHED[name][d]:.2f}" if d in PAPER else "" for d in depths]
            rows.append([f"{name} 5-shot, paper", *values])
    header = [f"mean squared error, ± 95 % over {over} (median)", *(f"{d} steps" for d in depths)]
    notes = [
        *result["deviations"],
        f"{run['steps']:,} steps; {tables.seeds(config['seed'], seeds)}; {config['test_tasks']:,}"
        " test tasks; no batch norm",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown(header, rows), *notes])


def draw_task(
    key: Key,
    wave: tuple[Array, Array],
    support: Batch,
    learnt: dict[str, tuple[MetaLearner, Params]],
    figure: Any,
) -> None:
    """One wave (amplitude, phase), and the predictions of each learner's first seed for it."""
    amplitude, phase = wave
    x = jnp.linspace(-5, 5, 200)[:, None]
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (title, (learner, params)) in zip(axes, learnt.items(), strict=True):
        axis.plot(x, amplitude * jnp.sin(x - phase), color="0.8", lw=5, label="true wave")
        for steps, color in ((0, "C2"), (1, "C0"), (10, "C1")):
            adapted = learner.adapt(key, per_seed(params)[0], support, steps)
            label = "before" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
            axis.plot(x, learner.predict(adapted, x), color, label=label)
        axis.plot(support.x, support.y, "k^", label="5 given points")
        axis.set(title=title, xlabel="x")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def draw_curve(run: Run, title: str, figure: Any) -> None:
    """The loss on training tasks by meta-step, of both trainings."""
    axis = figure.subplots()
    parts = {f"{title}, after adaptation": run, "joint training": run.part("pretrained")}
    for color, (name, part) in enumerate(parts.items()):
        lines = part.metrics("train")
        band(axis, lines["step"], lines["loss"], color, label=name)
    axis.set(xlabel="meta-step", ylabel="squared error", yscale="log")
    axis.legend()
