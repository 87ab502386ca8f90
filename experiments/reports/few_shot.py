"""What the experiment on few-shot classification says, read off its result."""

from typing import Any

import jax
import numpy as np

from jaxdl.report import pictures, tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.run import Run
from jaxdl.types import Episode, MetaLearner, Params

PAPER = {
    ("omniglot", 5, 1): "98.7 ± 0.4",
    ("omniglot", 5, 5): "99.9 ± 0.1",
    ("omniglot", 20, 1): "95.8 ± 0.3",
    ("omniglot", 20, 5): "98.9 ± 0.2",
    ("cifar_fs", 5, 1): "58.9 ± 1.9",
    ("cifar_fs", 5, 5): "71.5 ± 1.0",
}
"""Accuracy of MAML in percent: table 1 of the paper; CIFAR-FS in table 2 of MetaOptNet."""

METHODS = {
    "maml": "MAML",
    "pretrained": "pretrained, fine-tuned",
    "nearest_centroid": "nearest centroid of pixels",
}


def report(result: dict[str, Any]) -> str:
    """The result as a table, and what the numbers depend on.

    What another seed would bring is the interval over seeds; that over episodes is the mean of the
    seeds' own, and says how well each is known. Of a single seed there is the second alone.
    """
    config, run = result["config"], result["run"]
    many, rows = config["seeds"] > 1, []
    for name, title in METHODS.items():
        runs = result[name]  # of the centroid one for all seeds: nothing is trained
        found = seeds_summary([run["accuracy"] for run in runs])
        half = np.mean([run["ci95"] for run in runs])
        shown = tables.interval(found if many else {**found, "ci95": half}, scale=100)
        each = tables.by_seed(found, scale=100) * (len(runs) > 1)
        rows.append([title, shown, f"{100 * half:.2f}", each])
    if result["paper"]:
        rows.append(["MAML, published, ± over episodes", result["paper"], "", ""])
    title = f"{config['data']} {config['ways']}-way {config['shots']}-shot"
    header = [f"{title}, accuracy in %", f"mean, ± 95 % over {'seeds' if many else 'episodes'}"]
    header += ["± 95 % over episodes", "by seed"] * many
    table = tables.markdown(header, [row[: len(header)] for row in rows])
    notes = [
        f"{run['steps']:,} steps; {config['test_episodes']:,} test episodes with"
        f" {config['test_queries']} queries per class after {config['test_inner_steps']} inner"
        f" steps; {tables.seeds(config['seed'], config['seeds'])}",
        f"batch norm: {result['batch_norm']}; {result['split']}",
        f"chosen on validation: step {result['best_steps']}, fine-tuning rate"
        f" {result['fine_tuning_rate']}",
        *result["deviations"],
        tables.made_by(run),
    ]
    return "\n".join([table, *notes])


def deviations(config: dict[str, Any]) -> list[str]:
    """Where a run departs from the paper, to be printed beside its number."""
    if config["data"] in ("numbers", "digits"):
        return []
    inner = {
        "mean": "Inner loss: the mean over the support set, as the paper prints it; its code sums"
        " over classes.",
        "sum-over-classes": "Inner loss: summed over classes, as the code does; the paper prints"
        " the mean.",
    }
    found = [inner[config["inner_loss"]]]
    if config["data"] == "omniglot" and config["head"] == "xavier":
        found.append("The head starts as Xavier; the code draws it with standard deviation 1.")
    found.append("All parameters adapt; in the code the batch-norm offsets do not.")
    found.append(f"The paper trains 60,000 steps; this run {config['steps']:,}.")
    return found


def draw_curve(run: Run, figure: Any) -> None:
    """Accuracy by meta-step: on training tasks, and on validation classes."""
    axis = figure.subplots()
    for split, style in (("train", {"alpha": 0.5}), ("validation", {"marker": "o"})):
        lines = run.metrics(split)
        axis.plot(lines["step"], 100 * lines["accuracy"].mean(axis=1), label=split, **style)
    axis.set(xlabel="meta-step", ylabel="query accuracy in %")
    axis.legend()


def draw_episode(
    config: dict[str, Any], learner: MetaLearner, params: Params, episode: Episode, figure: Any
) -> None:
    """An episode with the answers of a learner that has adapted to its support set."""
    adapted = learner.adapt(jax.random.key(0), params, episode.support, config["test_inner_steps"])
    pictures.episode(episode, learner.predict(adapted, episode.query.x), figure)
