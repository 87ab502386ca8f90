"""The report of the experiment `airbench`."""

from typing import Any

from jaxdl.recipes import supervised
from jaxdl.recipes.cifar10 import EVALUATED


def report(result: dict[str, Any]) -> str:
    """The table of accuracies, then settings, seeds, data and machine."""
    config, shown = result["config"], min(EVALUATED, result["train_images"])
    note = (
        f"{config['dtype']}; the last parameters, nothing chosen on test; train: its first"
        f" {shown:,} images, not augmented; batch norm: {result['batch_norm']}"
    )
    if config["views"]:
        note += "; average over six views of each image"
    return supervised.report("CIFAR-10, airnet", result, note)
