"""The common part of tables of several tasks in one net."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary

MARKERS = "osD^v<>Pp*XhHd"


def values(summary: dict[str, Any]) -> np.ndarray:
    """The values of a summary, one per seed."""
    return np.array(summary["values"])


def difference(found: dict[str, Any], other: dict[str, Any]) -> np.ndarray:
    """The differences of mean accuracies by seed, in points. Both methods have the same data."""
    return 100 * (values(found["mean"]) - values(other["mean"]))


def shown(by_seed: np.ndarray) -> str:
    """Mean and interval as text."""
    return tables.interval(seeds_summary(by_seed))


def costs(result: dict[str, Any], name: str) -> list[str]:
    """Conflicts in %, and milliseconds per step."""
    found = result["methods"][name]
    conflicts, ms = found["conflicts"], found["ms_per_step"]
    return [
        "" if conflicts is None else tables.interval(conflicts, scale=100, digits=0),
        "" if ms is None else f"{ms:.2f}",
    ]


def notes(result: dict[str, Any], single: str) -> list[str]:
    """The lines below the table: settings, seeds, data and machine."""
    config, run = result["config"], result["run"]
    nets = (("single", single), ("equal", "the shared net"))
    counts = [f"{result['methods'][name]['parameters']:,} in {what}" for name, what in nets]
    found = [
        f"parameters: {', '.join(counts)}; {run['steps']:,} steps of {config['batch']};"
        f" {tables.seeds(config['seed'], config['seeds'])}; batch norm: none",
        f"{result['images']['test']:,} test images; the last parameters;"
        f" {config['validation']:,} images held out for choices, none made on test",
        "conflicts: share of pairs of tasks whose gradients in the trunk have a negative inner"
        f" product, on {config['probes']} batches per validation; ms per step: of one seed, without"
        " compilation and validation",
    ]
    if config["decay_steps"] > run["steps"]:
        steps = f"{config['decay_steps']:,}"
        found.append(f"stopped before the learning rate had fallen (--decay-steps {steps})")
    return [*found, tables.made_by(run)]
