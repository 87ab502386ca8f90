"""Report and pictures of the experiment `few_shot`."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdl.recipes.choice import name_of
from jaxdl.recipes.tasks import Tasks
from jaxdl.report import pictures, tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.run import Run
from jaxdl.types import Array, Episode, Params, TaskLearner

PAPER = {
    ("omniglot", 5, 1): "98.7 ± 0.4",
    ("omniglot", 5, 5): "99.9 ± 0.1",
    ("omniglot", 20, 1): "95.8 ± 0.3",
    ("omniglot", 20, 5): "98.9 ± 0.2",
    ("cifar_fs", 5, 1): "58.9 ± 1.9",
    ("cifar_fs", 5, 5): "71.5 ± 1.0",
}
"""Accuracy of MAML in percent: table 1 of the paper; CIFAR-FS in table 2 of MetaOptNet."""
FOMAML = {
    ("omniglot", 5, 1): "98.3",
    ("omniglot", 5, 5): "99.2",
    ("omniglot", 20, 1): "89.4",
    ("omniglot", 20, 5): "97.9",
}
"""The same of first-order MAML with the statistics of the batch at test, as the paper of Reptile
measured it (arXiv:1803.02999)."""
PROTONET = {
    ("omniglot", 5, 1): "98.8",
    ("omniglot", 5, 5): "99.7",
    ("omniglot", 20, 1): "96.0",
    ("omniglot", 20, 5): "98.9",
    ("cifar_fs", 5, 1): "55.5 ± 0.7",
    ("cifar_fs", 5, 5): "72.0 ± 0.6",
}
"""The same of ProtoNet: table 1 of arXiv:1703.05175; CIFAR-FS in table 2 of MetaOptNet."""

METHODS = {
    "support_mean": "mean of the support targets",
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "protonet": "ProtoNet",
    "imaml": "iMAML",
    "reptile": "Reptile",
    "anil": "ANIL",
    "boil": "BOIL",
    "meta_sgd": "Meta-SGD",
    "meta_curvature": "Meta-Curvature",
    "maml_pp": "MAML++",
    "cavia": "CAVIA",
    "es_maml": "ES-MAML",
    "r2d2": "R2-D2",
    "metaoptnet": "MetaOptNet-RR",
    "matchingnet": "MatchingNet",
    "relationnet": "RelationNet",
    "simpleshot": "SimpleShot",
    "proto_maml": "Proto-MAML",
    "finetune": "trained on labels, fine-tuned",
    "rfs": "RFS-simple",
    "linear_probe": "linear probe of frozen features",
    "baseline_pp": "Baseline++",
    "lstm_learner": "LSTM learner",
    "cnp": "CNP",
    "canp": "CANP",
    "lnp": "NP",
    "anp": "ANP",
    "tnp_d": "TNP-D",
    "snail": "SNAIL",
    "pfn": "PFN",
    "pretrained": "pretrained, fine-tuned",
    "nearest_centroid": "nearest centroid of pixels",
    "nearest_centroid_cosine": "nearest centroid of pixels, by cosine",
    "raw_logistic": "logistic regression on pixels",
}
BASELINES = (
    "untrained",
    "pretrained",
    "nearest_centroid",
    "nearest_centroid_cosine",
    "raw_logistic",
    "support_mean",
)
"""Names in a result, in the order of the table."""


def report(result: dict[str, Any]) -> str:
    """The result as a table, then settings, seeds, data and machine.

    The interval over seeds is for training again with another seed. The interval over episodes is
    the mean of the intervals of the seeds, and is for other test episodes. A single seed has only
    the second.
    """
    config, run = result["config"], result["run"]
    many, rows = config["seeds"] > 1, []
    learner, called = name_of(config), METHODS.get(method_of(config), name_of(config))
    metric = result.get("metric", "accuracy")  # runs of before classified
    accuracy, squared = (100, 2, "accuracy in %"), (1, 3, "mean squared error")
    scale, digits, unit = accuracy if metric == "accuracy" else squared
    for name in (learner, *BASELINES):
        if name not in result:  # a run without this baseline
            continue
        title = called if name == learner else METHODS.get(name, name)
        if config["data"] == "table":
            title = title.replace("centroid of pixels", "class mean").replace(
                "pixels", "the inputs"
            )
        if name == "untrained":
            title = f"{called}, untrained"
        runs = result[name]  # of the centroid one for all seeds: nothing is trained
        found = seeds_summary([run[metric] for run in runs])
        half = np.mean([float(run["ci95"]) for run in runs])  # "nan" where one is not finite
        shown = tables.interval(
            found if many else {**found, "ci95": half}, scale=scale, digits=digits
        )
        each = tables.by_seed(found, scale=scale, digits=digits) * (len(runs) > 1)
        rows.append([title, shown, f"{scale * half:.{digits}f}", each])
    if result["paper"]:
        published = f"{called}, published, ± over episodes"
        rows.append([published, result["paper"], "", ""])
    title = tasks_shown(config)
    if tested := tested_on(config):
        title += f", tested on {tested}"
    header = [f"{title}, {unit}", f"mean, ± 95 % over {'seeds' if many else 'episodes'}"]
    header += ["± 95 % over episodes", "by seed"] * many
    table = tables.markdown(header, [row[: len(header)] for row in rows])
    depth, rate = config["test_inner_steps"], result["fine_tuning_rate"]
    notes = [
        f"{run['steps']:,} steps; {config['test_episodes']:,} test episodes with"
        f" {config['test_queries']} queries per {'task' if config.get('task') else 'class'}"
        f"{'' if depth is None else f' after {depth} inner steps'};"
        f" {tables.seeds(config['seed'], config['seeds'])}",
        f"batch norm: {result['batch_norm']}; {result['split']}",
        f"chosen on validation: step {result['best_steps']}"
        f"{'' if rate is None else f', fine-tuning rate {rate}'}",
        *["untrained: with the parameters that training starts from"] * ("untrained" in result),
        *result["deviations"],
        tables.made_by(run),
    ]
    return "\n".join([table, *notes])


def tasks_shown(config: dict[str, Any]) -> str:
    """What the training tasks are: "numbers 5-way 1-shot", "table, 1 row per task"."""
    if config.get("task"):
        rows = "1 row" if config["shots"] == 1 else f"{config['shots']} rows"
        return f"{config['data']} {config['path']}, {rows} per task"
    return f"{config['data']} {config['ways']}-way {config['shots']}-shot"


def tested_on(config: dict[str, Any]) -> str:
    """The test tasks, where they are others than the training tasks: "omniglot 5-way"."""
    found = [config.get("test_data") or ""]
    found += [f"{config['test_ways']}-way"] if config.get("test_ways") else []
    found += [f"{config['test_shots']}-shot"] if config.get("test_shots") else []
    return " ".join(part for part in found if part)


def method_of(config: dict[str, Any]) -> str:
    """The name of a run's method: MAML with first-order gradients has one of its own."""
    first_order = config.get("estimator") == "first-order"
    return "fomaml" if name_of(config) == "maml" and first_order else name_of(config)


def published(config: dict[str, Any]) -> str | None:
    """The paper's accuracy on the test tasks of a run, for the learners that have one here."""
    tables_of = {"maml": PAPER, "fomaml": FOMAML, "protonet": PROTONET}
    name = method_of(config)
    ways, shots = (config.get(f"test_{name}") or config[name] for name in ("ways", "shots"))
    if config.get("test_data"):
        return None
    return tables_of.get(name, {}).get((config["data"], ways, shots))


def draw_curve(run: Run, metric: str, figure: Any) -> None:
    """Accuracy, or the loss, by meta-step, on training tasks and on validation tasks."""
    axis, scale = figure.subplots(), 100 if metric == "accuracy" else 1
    for split, style in (("train", {"alpha": 0.5}), ("validation", {"marker": "o"})):
        lines = run.metrics(split)
        axis.plot(lines["step"], scale * lines[metric].mean(axis=1), label=split, **style)
    axis.set(xlabel="meta-step", ylabel="query accuracy in %" if scale > 1 else "query loss")
    axis.legend()


def draw_episode(
    run: Run,
    tasks: Tasks,
    steps: int | None,
    learner: TaskLearner,
    params: Params,
    episode: Episode,
) -> None:
    """An episode with the predictions of a learner that has adapted to its support set.

    Images are shown with their predicted class. Of a regression, predictions stand over targets.
    """
    support, query = episode.support, episode.query
    adapted = learner.adapt(jax.random.key(0), params, support, steps)
    found = learner.predict(adapted, query.x)
    if np.ndim(query.x) == 4:
        ways = tasks.test_ways
        size = (1 + 1.2 * (len(support.y) // ways + min(8, len(query.y) // ways)), 0.5 + 1.1 * ways)
        run.picture("episode", partial(pictures.episode, episode, found), size=size)
    elif tasks.metric == "loss":
        run.picture("episode", partial(draw_regression, query.y, found), size=(4, 4))


def draw_regression(target: Array, prediction: Array, figure: Any) -> None:
    """Predictions over targets of the queries of one task."""
    axis = figure.subplots()
    axis.plot(target, prediction, "o")
    axis.axline((0, 0), slope=1, color="0.7")
    axis.set(xlabel="target, standardised", ylabel="prediction")
