"""What the experiment on transfer learning says, read off its result."""

from typing import Any

import numpy as np

from jaxdl.report import by_count, tables
from jaxdl.report.by_count import interval, labelled
from jaxdl.report.intervals import seeds_mean_ci95, seeds_summary

METHODS = {
    "scratch": "from scratch",
    "probe": "linear probe",
    "full": "full fine-tuning",
    "gradual": "gradual unfreezing",
    "maml": "MAML initialisation",
}


def finding(result: dict[str, Any]) -> str:
    """What a reader can quote, read off the numbers."""
    test = {name: 100 * np.array(found["test"]) for name, found in result["methods"].items()}
    counts = result["counts"]
    best = by_count.best_start(result, METHODS)
    return (
        f"With {labelled(counts[0])} a class of {result['config']['data']}, the method that is best"
        f" on validation ({METHODS[best]}) is {compared(test[best][0] - test['scratch'][0])}"
        f" above training from scratch, which needs {by_count.examples_needed(result, best)} its"
        f" {test[best][0].mean():.1f} %; with {labelled(counts[-1])} full fine-tuning is"
        f" {compared(test['full'][-1] - test['scratch'][-1])} from it. The probe is behind full"
        f" fine-tuning {behind(test['full'] - test['probe'], counts)}. Gradual unfreezing is"
        f" {compared(test['gradual'][0] - test['full'][0])} from full fine-tuning with"
        f" {labelled(counts[0])} and {compared(test['gradual'][-1] - test['full'][-1])} with"
        f" {labelled(counts[-1])}."
    )


def compared(values: np.ndarray) -> str:
    """A difference by seed, in points."""
    mean, half = seeds_mean_ci95(values)
    return f"{interval(values)} points{' (within its interval)' * bool(abs(mean) <= half)}"


def behind(differences: np.ndarray, counts: tuple[int, ...]) -> str:
    """From which count on the differences `[counts, seeds]` are above 0 by more than chance."""
    mean, half = seeds_mean_ci95(differences, axis=1)
    clear = mean > half  # and never of a single seed, whose half width is NaN
    from_here = [bool(clear[i:].all()) for i in range(len(counts))]
    if True not in from_here:
        return f"nowhere for sure: {compared(differences[-1])} with {labelled(counts[-1])}"
    first = from_here.index(True)
    return (
        f"with {labelled(counts[first])} a class"
        + " and more" * (first < len(counts) - 1)
        + f", by {interval(differences[-1])} points"
        + f" with {labelled(counts[-1])}" * (first < len(counts) - 1)
    )


def report(result: dict[str, Any]) -> str:
    """The table, the finding, and what the numbers depend on."""
    config, run, images = result["config"], result["run"], result["images"]
    return "\n".join(
        [
            "test accuracy in %, ± 95 % over seeds by Student's t",
            by_count.table(result, METHODS),
            result["finding"],
            f"source: {result['classes']['source']} other classes, {images['source']:,} images;"
            f" {source_of(result)}",
            f"{run['steps']:,} steps of {config['batch']}, a layer more every {config['stage']} in"
            f" gradual unfreezing; {images['test']:,} test images of {result['classes']['target']}"
            f" classes; {tables.seeds(config['seed'], config['seeds'])}, each with other examples;"
            " the net is LeNet; batch norm: none",
            by_count.chosen(result, METHODS),
            tables.made_by(run),
        ]
    )


def source_of(result: dict[str, Any]) -> str:
    """What the transferred trunk comes from."""
    if result["source"] is None:
        return f"but the trunk is that of {result['config']['init_from']}"
    accuracy = tables.interval(seeds_summary(result["source"]), scale=100, digits=1)
    return f"its classifier is right on {accuracy} % of {result['images']['source_test']:,} others"
