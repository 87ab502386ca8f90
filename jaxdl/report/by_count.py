"""Reports of accuracy by labelled examples per class, for experiments with few labels.

A `result` holds:

- `methods` by name, each with `validation` and `test` `[counts, seeds]`, and the `rates` (learning
  rates) of `few_labels.learn`,
- `counts`, where 0 means all, and `examples`, the numbers of examples per class,
- `images`, the number in each part, and `config`.

The argument `methods` has the title of each method by name, `scratch` among them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary


def labelled(count: int) -> str:
    """A count of examples as a phrase."""
    return "all examples" if count == 0 else f"{count} example{'s' * (count > 1)}"


def count_names(counts: Sequence[int], examples: Sequence[float]) -> list[str]:
    """Row names of a table by counts per class. `examples` has the numbers, also for count 0."""
    return [
        f"{value:,.0f}{' (all)' * (count == 0)}"
        for count, value in zip(counts, examples, strict=True)
    ]


def interval(values: ArrayLike) -> str:
    """The mean over seeds, with its 95 % interval if there are at least two seeds."""
    return tables.interval(seeds_summary(values), digits=1)


def table(result: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    """Test accuracies in %: one row per count, one column per method."""
    header = [f"{result['config']['data']}: labelled per class", *methods.values()]
    rows = [
        [name, *(interval(100 * np.array(result["methods"][each]["test"][i])) for each in methods)]
        for i, name in enumerate(count_names(result["counts"], result["examples"]))
    ]
    return tables.markdown(header, rows)


def differences(result: Mapping[str, Any], methods: Mapping[str, str], base: str) -> str:
    """Test accuracy of each method minus that of `base`, in points, paired by seed: as `table`."""
    others = [name for name in methods if name != base]
    title = f"labels per class; minus {methods[base]}"
    header = [title, *(methods[name] for name in others)]
    test = {name: 100 * np.array(result["methods"][name]["test"]) for name in methods}
    rows = [
        [name, *(interval(test[other][i] - test[base][i]) for other in others)]
        for i, name in enumerate(count_names(result["counts"], result["examples"]))
    ]
    return tables.markdown(header, rows)


def chosen(result: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    """The chosen learning rates, and the number of validation images."""
    rates = "; ".join(
        f"{methods[name]} {' '.join(f'{rate:g}' for rate in found['rates'])}"
        for name, found in result["methods"].items()
    )
    return (
        f"chosen on {result['images']['validation']:,} validation images: number of steps, and"
        f" learning rate by count: {rates}"
    )
