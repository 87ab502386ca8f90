"""The numbers by which a row is told in a line, and compared with those of its stored weights."""

from typing import Any

import numpy as np

from experiments.reports.tabular import METRICS
from experiments.tables.document import over_seeds
from experiments.tables.rows import Experiment

UNITS: dict[Experiment, str] = {
    "few_shot": "accuracy in %",
    "sinusoid": "mean squared error with 5 and 10 shots after 1 step",
    "tabular": "ROC AUC and accuracy, means over four tables",
}
DIGITS: dict[Experiment, int] = {"few_shot": 2, "sinusoid": 3, "tabular": 3}


def numbers(experiment: Experiment, result: dict[str, Any], learner: str) -> list[list[float]]:
    """Each number of `UNITS`, by seed.

    Args:
        learner: the name of the learner in the result.
    """
    if experiment == "few_shot":
        return [[100 * seed["accuracy"] for seed in result[learner]]]
    if experiment == "sinusoid":
        places = (f"{shots}-shot/1" for shots in (5, 10))
        return [[float(seed[place]["mean"]) for seed in result[learner]] for place in places]
    return [
        np.mean([table["tabular"][metric] for table in result["scores"].values()], axis=(0, 2))
        .astype(float)
        .tolist()
        for metric in METRICS
    ]


def headline(experiment: Experiment, result: dict[str, Any], learner: str) -> str:
    """The numbers with their intervals over seeds."""
    form = f".{DIGITS[experiment]}f"
    return ", ".join(over_seeds(values, form) for values in numbers(experiment, result, learner))
