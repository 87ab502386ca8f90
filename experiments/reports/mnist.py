"""The report of the experiment `mnist`."""

from typing import Any

from jaxdl.recipes import supervised


def report(result: dict[str, Any]) -> str:
    """The result as a table, then settings, seeds, data and machine."""
    config = result["config"]
    notes = [
        f"the 10,000 test images alone leave ± {100 * result['binomial_ci95']:.2f} (binomial)",
        f"the last parameters; {config['validation']:,} images held out for choices, none made on"
        f" test; train without augmentation; batch norm: {result['batch_norm']}",
    ]
    title = f"MNIST, {config['net']} {'-'.join(map(str, config['hidden']))}"
    return supervised.report(title, result, *notes)
