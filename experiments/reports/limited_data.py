"""The report of the experiment `limited_data`."""

from typing import Any

from jaxdl.report import by_count, tables

METHODS = {
    "scratch": "from scratch",
    "augmented": "augmented, regularised",
    "transfer": "transfer",
    "maml": "MAML initialisation",
}


def report(result: dict[str, Any]) -> str:
    """Accuracies and paired differences, then settings, seeds, data and machine."""
    config, run = result["config"], result["run"]
    return "\n".join(
        [
            "test accuracy in %, ± 95 % over seeds by Student's t",
            by_count.table(result, METHODS),
            "\ndifferences in points, paired by seed",
            by_count.differences(result, METHODS, "scratch"),
            "",
            f"{run['steps']:,} steps of {config['batch']}; {result['images']['test']:,} test"
            f" images; {tables.seeds(config['seed'], config['seeds'])}, each with other examples;"
            " the net is LeNet; batch norm: none",
            by_count.chosen(result, METHODS),
            tables.made_by(run),
        ]
    )
