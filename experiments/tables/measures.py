"""The numbers by which a row is told in a line, and compared with those of its stored weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.reports.tabular import METRICS
from experiments.tables.rows import Experiment
from experiments.tables.values import over_seeds

Numbers = list[list[float]]
"""Several numbers, each by seed."""


class Measure(NamedTuple):
    """What the numbers of a result are, and where they stand in it.

    `numbers(result, learner)` has the name of the result's learner, where there are learners.
    """

    unit: str
    digits: int
    numbers: Callable[[dict[str, Any], str], Numbers]


def _errors_of_sines(result: dict[str, Any], learner: str) -> Numbers:
    places = (f"{shots}-shot/1" for shots in (5, 10))
    return [[float(seed[place]["mean"]) for seed in result[learner]] for place in places]


def _of_processes(result: dict[str, Any], learner: str) -> Numbers:
    kinds = result["scores"][learner].values()
    return [[float(seed["log_likelihood"]["mean"]) for seed in seeds] for seeds in kinds]


def _scores_of_tables(result: dict[str, Any], learner: str) -> Numbers:
    return [
        np.mean([table["tabular"][metric] for table in result["scores"].values()], axis=(0, 2))
        .astype(float)
        .tolist()
        for metric in METRICS
    ]


def _by_seed(*path: str, scale: float = 1) -> Callable[[dict[str, Any], str], Numbers]:
    """The values of the summaries at a path of a result. "*" is every entry of that place."""

    def numbers(result: dict[str, Any], learner: str) -> Numbers:
        found = [result]
        for name in path:
            found = [
                each
                for place in found
                for each in (place.values() if name == "*" else [place[name]])
            ]
        return [[scale * float(value) for value in each["values"]] for each in found]

    return numbers


def _with_fewest_labels(result: dict[str, Any], learner: str) -> Numbers:
    return [[100 * value for value in found["test"][0]] for found in result["methods"].values()]


def _of_the_widest(result: dict[str, Any], learner: str) -> Numbers:
    return [[100 * value for value in widths[-1]] for widths in result["sizes"]["test"]]


def _returns_by_steps(result: dict[str, Any], learner: str) -> Numbers:
    return [[float(value) for value in found["values"]] for found in result["methods"]["maml"]]


_IMAGES = Measure("test accuracy in %", 2, _by_seed("test", "accuracy", scale=100))
_LABELS = Measure("test accuracy in % with the fewest labels, by method", 1, _with_fewest_labels)
_TASKS = Measure(
    "mean test accuracy in %, by method", 2, _by_seed("methods", "*", "mean", scale=100)
)
MEASURES: dict[Experiment, Measure] = {
    "few_shot": Measure(
        "accuracy in %",
        2,
        lambda result, learner: [[100 * seed["accuracy"] for seed in result[learner]]],
    ),
    "sinusoid": Measure("mean squared error with 5 and 10 shots after 1 step", 3, _errors_of_sines),
    "regression_1d": Measure("log-likelihood per target point, by curves", 3, _of_processes),
    "regression_2d": Measure(
        "log-likelihood per pixel that is not given, by how many are", 3, _of_processes
    ),
    "tabular": Measure("ROC AUC and accuracy, means over four tables", 3, _scores_of_tables),
    "mnist": _IMAGES,
    "cifar10": _IMAGES,
    "sequences": Measure(
        "test accuracy in %, by cell", 2, _by_seed("cells", "*", "accuracy", scale=100)
    ),
    "long_memory": Measure("test error, by cell", 5, _by_seed("cells", "*", "loss")),
    "limited_data": _LABELS,
    "capacity": Measure("test accuracy in % of the widest net, by labels", 1, _of_the_widest),
    "transfer": _LABELS,
    "multitask": _TASKS,
    "many_questions": _TASKS,
    "continual": Measure(
        "retained accuracy in %, by method", 2, _by_seed("methods", "*", "retained", scale=100)
    ),
    "dqn": Measure("return at the end, by memory", 1, _by_seed("memories", "*", "return")),
    "navigation": Measure("return of MAML after 0, 1, 2, 3 steps", 2, _returns_by_steps),
}


def numbers(experiment: Experiment, result: dict[str, Any], learner: str) -> Numbers:
    """The numbers of a result, each by seed.

    Args:
        learner: the name of the learner in the result.
    """
    return MEASURES[experiment].numbers(result, learner)


def headline(experiment: Experiment, result: dict[str, Any], learner: str) -> str:
    """The numbers with their intervals over seeds."""
    form = f".{MEASURES[experiment].digits}f"
    return ", ".join(over_seeds(values, form) for values in numbers(experiment, result, learner))
