"""Accuracies by labelled examples a class, in words: what experiments with few labels share.

A `result` holds `methods` by name, each with `validation`, `test` `[counts, seeds]` and `rates` of
`few_labels.learn`; `counts`, 0 for all; how many `examples` a class they are; `images`, the number
of each part; and `config`. `methods` are the titles of the methods by name, `scratch` among them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary


def labelled(count: int) -> str:
    """A count in words."""
    return "all examples" if count == 0 else f"{count} example{'s' * (count > 1)}"


def count_names(counts: Sequence[int], examples: Sequence[float]) -> list[str]:
    """Counts of examples a class as a table names them; `examples`: how many 0 are."""
    return [
        f"{value:,.0f}{' (all)' * (count == 0)}"
        for count, value in zip(counts, examples, strict=True)
    ]


def interval(values: ArrayLike) -> str:
    """Mean over seeds with its 95 % interval, where there are two seeds at least."""
    return tables.interval(seeds_summary(values), digits=1)


def table(result: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    """Test accuracies in %: a row for each count, a column for each method."""
    header = [f"{result['config']['data']}: labelled a class", *methods.values()]
    rows = [
        [name, *(interval(100 * np.array(result["methods"][each]["test"][i])) for each in methods)]
        for i, name in enumerate(count_names(result["counts"], result["examples"]))
    ]
    return tables.markdown(header, rows)


def chosen(result: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    """What was chosen, and on how many validation images."""
    rates = "; ".join(
        f"{methods[name]} {' '.join(f'{rate:g}' for rate in found['rates'])}"
        for name, found in result["methods"].items()
    )
    return (
        f"chosen on {result['images']['validation']:,} validation images: number of steps, and step"
        f" size by count: {rates}"
    )


def best_start(result: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    """The method, training from scratch aside, that validation prefers with the fewest examples."""
    return max(
        (name for name in methods if name != "scratch"),
        key=lambda name: float(np.mean(result["methods"][name]["validation"][0])),
    )


def examples_needed(result: Mapping[str, Any], name: str) -> str:
    """With how many examples training from scratch is as good as a method with the fewest."""
    scratch, method = (
        (100 * np.array(result["methods"][each]["test"])).mean(axis=1) for each in ("scratch", name)
    )
    caught = np.flatnonzero(scratch >= method[0])
    if len(caught):
        return f"{labelled(result['counts'][caught[0]])} before it passes"
    return f"more than {labelled(result['counts'][-1])} to pass"
