"""The tables of few-shot classification."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.tables.rows import DECIDES, TABLES, TITLES
from experiments.tables.stored import learner_of, results_of
from experiments.tables.values import Cells, accuracies, over_episodes, over_seeds

TESTS = {"maml": "tested as MAML", "vinyals": "tested as ProtoNet"}
"""The two tests of Omniglot, by their splits."""


def _by_accuracy(table: str) -> dict[str, tuple[list[dict[str, float]], dict[str, Any]]]:
    """For each stored row what its learner reached and its result, the best first."""
    found = {
        name: (result[learner_of(result)], result) for name, result in results_of(table).items()
    }
    return dict(sorted(found.items(), key=lambda row: -float(np.mean(accuracies(row[1][0])))))


def numbers(table: str) -> Cells:
    """Accuracy with the digits that a spread of 2 points leaves, and the pixels below."""
    yield ["learner", "mean, ± over seeds", "over episodes", "untrained", "time"]
    found = _by_accuracy(table)
    for name, (own, result) in found.items():
        yield [
            TITLES[name],
            over_seeds(accuracies(own), ".1f"),
            f"± {over_episodes(own):.1f}",
            f"{np.mean(accuracies(result['untrained'])):.1f}",
            f"{result['run']['wall_seconds']:.0f} s",
        ]
    for name, seeds in pixels(list(results_of(table).values())):
        yield [
            TITLES[name],
            f"{np.mean(accuracies(seeds)):.1f}",
            f"± {over_episodes(seeds):.1f}",
            "",
            "",
        ]


def pixels(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Sequence[dict[str, float]]]]:
    """The baselines that know pixels alone, each from the first result that has it."""
    for name in ("nearest_centroid", "nearest_centroid_cosine", "raw_logistic"):
        yield from [(name, result[name]) for result in results if name in result][:1]


def omniglot(table: str) -> Cells:
    """Accuracy beside the papers'."""
    figures = ("mean, ± over seeds", "over episodes", "untrained", "paper")
    yield ["learner", "steps", "of the recipe", *figures]
    for name, (own, result) in _by_accuracy(table).items():
        row, steps = TABLES[table].row(name), result["run"]["steps"]
        yield [
            TITLES[name],
            f"{steps:,}",
            f"{100 * steps / row.recipe:.0f} %" if row.recipe else "",
            over_seeds(accuracies(own), ".2f"),
            f"± {over_episodes(own):.2f}",
            f"{np.mean(accuracies(result['untrained'])):.1f}",
            row.paper,
        ]
    for split, title in TESTS.items():
        tested = [each for each in results_of(table).values() if each["config"]["split"] == split]
        for name, seeds in pixels(tested):
            mean = f"{np.mean(accuracies(seeds)):.2f}"
            yield [
                f"{TITLES[name]}, {title}",
                "",
                "",
                mean,
                f"± {over_episodes(seeds):.2f}",
                "",
                "",
            ]


def what_decides(table: str) -> Cells:
    """Accuracy of MAML with one thing changed, and the difference paired by seed."""
    figures = ("mean, ± over seeds", "minus the first", "untrained", "pixels", "time")
    yield ["changed", "steps", *figures]
    results = results_of(table)
    base = np.array(accuracies(results["base"]["maml"])) if "base" in results else None
    for name, result in results.items():
        own = np.array(accuracies(result["maml"]))
        yield [
            DECIDES[name][0],
            f"{result['run']['steps']:,}",
            over_seeds(own, ".2f"),
            "" if base is None or name == "base" else over_seeds(own - base, ".2f", sign="+"),
            f"{np.mean(accuracies(result['untrained'])):.1f}",
            f"{np.mean(accuracies(result['nearest_centroid'])):.1f}",
            f"{result['run']['wall_seconds']:.0f} s",
        ]
