"""The tables of sine waves."""

from collections.abc import Sequence

import numpy as np

from experiments.reports.sinusoid import PUBLISHED
from experiments.tables.rows import TABLES, TITLES
from experiments.tables.stored import learner_of, results_of
from experiments.tables.values import Cells, over_seeds

DIVERGED = 100.0
"""A mean squared error above this, or one that is not finite, is no error of a fit."""
DEPTHS = (0, 1, 5, 10)
"""The inner steps of the test whose errors are shown."""


def sines(table: str) -> Cells:
    """Mean squared error by shots and steps of the test, the best first."""
    columns = [(shots, steps) for steps in (1, 10) for shots in (5, 10)]
    shown = [f"{shots}-shot, {steps} step{'s' * (steps > 1)}" for shots, steps in columns]
    yield ["learner", "meta-steps", "steps in training", *shown, "paper, 1 step", "time"]
    results = results_of(table)

    def errors(name: str, shots: int, steps: int) -> list[float]:
        seeds = results[name][learner_of(results[name])]
        return [float(seed[f"{shots}-shot/{steps}"]["mean"]) for seed in seeds]

    def cell(values: list[float]) -> str:
        return over_seeds(values, ".3f") if np.max(values) < DIVERGED else "diverges"

    for name in sorted(results, key=lambda name: float(np.mean(errors(name, 10, 1)))):
        trained = results[name]["config"].get("inner_steps")
        yield [
            TITLES[name],
            f"{results[name]['config']['steps']:,}",
            "none" if trained is None else str(trained),
            *(cell(errors(name, *column)) for column in columns),
            TABLES[table].row(name).paper or "none",
            f"{results[name]['run']['wall_seconds']:.0f} s",
        ]


def maml_on_sines(table: str) -> Cells:
    """The 5-shot errors of MAML and of its baseline by steps and seeds, beside the paper's."""
    yield ["after", *_after(DEPTHS)]
    result = results_of(table)["maml"]

    def cells(name: str, key: str = "mean") -> list[list[float]]:
        return [[float(seed[f"5-shot/{depth}"][key]) for seed in result[name]] for depth in DEPTHS]

    first: int = result["config"]["seed"]
    for i, values in enumerate(zip(*cells("maml"), strict=True)):
        yield [f"MAML, seed {first + i}", *(f"{value:.3f}" for value in values)]
    yield ["MAML, mean", *(over_seeds(values, ".2f") for values in cells("maml"))]
    halves = [float(np.mean(values)) for values in cells("maml", "ci95")]
    yield ["MAML, one seed, ± over tasks", *(f"± {half:.2f}" for half in halves)]
    yield ["paper (one seed, 600 tasks)", *published("maml", DEPTHS)]
    yield ["pretrained, fine-tuned, mean", *(over_seeds(v, ".2f") for v in cells("pretrained"))]
    yield ["pretrained, fine-tuned, paper", *published("pretrained", DEPTHS)]


def published(name: str, depths: Sequence[int]) -> list[str]:
    """The figures of MAML's paper on sine waves, empty where it has none."""
    figures = PUBLISHED[name]
    return [f"{figures[depth]:.2f}" if depth in figures else "" for depth in depths]


def from_the_codes_start(table: str) -> Cells:
    """The 5-shot errors of MAML by seed, from the start that the authors' code draws."""
    yield ["seed", *_after(DEPTHS)]
    for result in results_of(table).values():
        first: int = result["config"]["seed"]
        for i, seed in enumerate(result["maml"]):
            errors = [float(seed[f"5-shot/{depth}"]["mean"]) for depth in DEPTHS]
            shown = (f"{e:.3f}" if e < DIVERGED else "diverges" for e in errors)
            yield [str(first + i), *shown]
        yield ["paper", *published("maml", DEPTHS)]


def _after(depths: Sequence[int]) -> list[str]:
    return [f"{depth} step{'s' * (depth != 1)}" for depth in depths]
