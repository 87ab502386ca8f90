"""Report and pictures of the experiment `regression_1d`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reports._processes import cell, moments
from jaxdl.losses import Normal
from jaxdl.recipes.choice import name_of
from jaxdl.report import tables
from jaxdl.types import Episode, MetaLearner, Params

PUBLISHED: dict[str, dict[str, float]] = {
    "cnp": {"rbf": 0.26, "matern": 0.04},
    "canp": {"rbf": 0.79, "matern": 0.62},
    "lnp": {"rbf": 0.27, "matern": 0.07},
    "anp": {"rbf": 0.81, "matern": 0.63},
    "tnp_d": {"rbf": 1.39, "matern": 0.95},
}
"""Table 1 of the paper of TNP: log-likelihood per target point after 100,000 steps on RBF."""
METRICS = {
    "log_likelihood": "targets",
    "joint_log_likelihood": "targets, jointly",
    "context": "context",
    "squared_error": "squared error",
}
"""The metrics of the table with their titles."""


def report(result: dict[str, Any]) -> str:
    """The result as a table: a row per learner and metric, a column per kind of curve."""
    run, config, name = result["run"], result["config"], name_of(result["config"])
    kernels, of_learner, rows = config["test_kernels"], result["scores"][name], []
    seeds = len(of_learner[kernels[0]])
    for metric, title in METRICS.items():
        if metric not in of_learner[kernels[0]][0]:
            continue
        cells = [cell([each[metric] for each in of_learner[kernel]]) for kernel in kernels]
        rows.append([f"{name}, {title}", *cells])
        gp = [result["scores"]["gp"].get(kernel, {}).get(metric) for kernel in kernels]
        if any(gp):
            rows.append([f"exact GP, {title}", *(cell([each]) if each else "" for each in gp)])
        published = result["published"] if config["kernel"] == "rbf" else {}
        if metric == "log_likelihood" and published:
            told = [f"{published[each]:.2f}" if each in published else "" for each in kernels]
            rows.append([f"{name}, {title}, paper", *told])
    header = [f"log-likelihood per point, ± 95 % over {'seeds' if seeds > 1 else 'tasks'}"]
    notes = [
        f"trained on {config['kernel']} for {run['steps']:,} steps of {config['tasks']} tasks;"
        f" {tables.seeds(config['seed'], seeds)}; {config['test_tasks']:,} test tasks per kind of"
        f" curve; {result['parameters']:,} parameters; no batch norm",
        *["paper: trained for 100,000 steps on rbf"]
        * bool(result["published"])
        * (config["kernel"] == "rbf"),
        "the exact GP knows kernel, lengthscale and scale of each task; its ± is over tasks",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown([*header, *kernels], rows), *notes])


def draw_bands(
    name: str,
    learner: MetaLearner,
    params: Params,
    episodes: Episode,
    exact: Callable[[Any], Normal] | None,
    figure: Any,
) -> None:
    """A column per task: mean and two standard deviations of the learner, and below of the GP."""
    tasks = len(episodes.support.x)
    low, high = (f([float(f(part.x)) for part in episodes]) for f in (np.min, np.max))
    x = jnp.broadcast_to(jnp.linspace(low, high, 200)[None, :, None], (tasks, 200, 1))

    def predict(support: Any, x: Any) -> Normal:
        return learner.predict(learner.adapt(jax.random.key(0), params, support), x)

    rows = {name: jax.jit(jax.vmap(predict))(episodes.support, x)}
    if exact is not None:
        rows["exact GP"] = exact(np.asarray(x))
    axes = figure.subplots(len(rows), tasks, sharex=True, sharey="col", squeeze=False)
    for color, (title, found) in enumerate(rows.items()):
        mean, scale = moments(found)
        samples = np.asarray(found.mean)[..., :10] if found.mean.ndim == 4 else None
        for task, axis in enumerate(axes[color]):
            line, half = mean[task, :, 0], 2 * scale[task, :, 0]
            if samples is not None:
                axis.plot(x[task], samples[task, :, 0], f"C{color}", lw=0.5, alpha=0.5)
            axis.plot(x[task], line, f"C{color}", label="mean, two standard deviations")
            axis.fill_between(x[task, :, 0], line - half, line + half, color=f"C{color}", alpha=0.2)
            for part, style in ((episodes.support, "k^"), (episodes.query, "k.")):
                counts = slice(None) if part.weight is None else np.asarray(part.weight[task]) > 0
                label = "context" if part is episodes.support else "targets"
                points = np.asarray(part.x[task])[counts], np.asarray(part.y[task])[counts]
                axis.plot(*points, style, ms=4, alpha=0.8, label=label)
        axes[color][0].set(ylabel=title)
    for axis in axes[-1]:
        axis.set(xlabel="x")
    figure.legend(*axes[-1][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
