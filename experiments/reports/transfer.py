"""The report of the experiment `transfer`."""

from typing import Any

from jaxdl.report import by_count, tables
from jaxdl.report.intervals import seeds_summary

METHODS = {
    "scratch": "from scratch",
    "probe": "linear probe",
    "full": "full fine-tuning",
    "gradual": "gradual unfreezing",
    "maml": "MAML initialisation",
}
FINE_TUNING = {name: METHODS[name] for name in ("full", "probe", "gradual")}


def report(result: dict[str, Any]) -> str:
    """Accuracies and paired differences, then settings, seeds, data and machine."""
    config, run, images = result["config"], result["run"], result["images"]
    return "\n".join(
        [
            "test accuracy in %, ± 95 % over seeds by Student's t",
            by_count.table(result, METHODS),
            "\ndifferences in points, paired by seed",
            by_count.differences(result, METHODS, "scratch"),
            "",
            by_count.differences(result, FINE_TUNING, "full"),
            "",
            f"source: {result['classes']['source']} other classes, {images['source']:,} images;"
            f" {source_of(result)}",
            f"{run['steps']:,} steps of {config['batch']}; gradual unfreezing adds a layer every"
            f" {config['stage']}; {images['test']:,} test images of {result['classes']['target']}"
            f" classes; {tables.seeds(config['seed'], config['seeds'])}, each with other examples;"
            " the net is LeNet; batch norm: none",
            by_count.chosen(result, METHODS),
            tables.made_by(run),
        ]
    )


def source_of(result: dict[str, Any]) -> str:
    """The origin of the transferred trunk."""
    if result["source"] is None:
        return f"but the trunk is that of {result['config']['init_from']}"
    accuracy = tables.interval(seeds_summary(result["source"]), scale=100, digits=1)
    return f"its classifier is right on {accuracy} % of {result['images']['source_test']:,} others"
