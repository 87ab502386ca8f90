"""The tables of docs/results.md and docs/what-decides.md, written from what is stored."""

import importlib
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.reports.sinusoid import PUBLISHED
from experiments.reports.tabular import scores_table
from experiments.tables import figure
from experiments.tables.processes import curves
from experiments.tables.rows import DECIDES, TABLES, TITLES
from experiments.tables.stored import DOCS, learner_of, results_of
from jaxdl.files.atomic import write_text
from jaxdl.report.intervals import seeds_mean_ci95
from jaxdl.report.tables import markdown

DIVERGED = 100.0
"""A mean squared error above this, or one that is not finite, is no error of a fit."""
Cells = Iterator[list[str]]


def over_seeds(values: Sequence[float] | np.ndarray, form: str, sign: str = "") -> str:
    """The mean with its interval over seeds, or a single seed without one.

    >>> over_seeds([97.123], ".1f"), over_seeds([1.0, 2.0, 3.0], ".2f")
    ('97.1 (1 seed)', '2.00 ± 2.48')
    >>> over_seeds([1.0, 2.0, 3.0], ".1f", sign="+")
    '+2.0 ± 2.5'
    """
    mean, half = seeds_mean_ci95(np.asarray(values, np.float64))
    if len(values) == 1:
        return f"{mean:{sign}{form}} (1 seed)"
    return f"{mean:{sign}{form}} ± {half:{form}}"


def accuracies(seeds: Sequence[dict[str, float]]) -> list[float]:
    """The accuracy of each seed in percent."""
    return [100 * seed["accuracy"] for seed in seeds]


def over_episodes(seeds: Sequence[dict[str, float]]) -> float:
    """Half the interval over episodes in percent, the mean of the seeds."""
    return float(np.mean([100 * seed["ci95"] for seed in seeds]))


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
    for name, seeds in pixels(table):
        yield [
            TITLES[name],
            f"{np.mean(accuracies(seeds)):.1f}",
            f"± {over_episodes(seeds):.1f}",
            "",
            "",
        ]


def pixels(table: str) -> Iterator[tuple[str, Sequence[dict[str, float]]]]:
    """The baselines of a table that know pixels alone, from the first row that has them."""
    for name in ("nearest_centroid", "nearest_centroid_cosine", "raw_logistic"):
        yield from [
            (name, result[name]) for result in results_of(table).values() if name in result
        ][:1]


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
    depths = (0, 1, 5, 10)
    yield ["after", *(f"{depth} step{'s' * (depth != 1)}" for depth in depths)]
    result = results_of(table)["maml"]

    def cells(name: str, key: str = "mean") -> list[list[float]]:
        return [[float(seed[f"5-shot/{depth}"][key]) for seed in result[name]] for depth in depths]

    first: int = result["config"]["seed"]
    for i, values in enumerate(zip(*cells("maml"), strict=True)):
        yield [f"MAML, seed {first + i}", *(f"{value:.3f}" for value in values)]
    yield ["MAML, mean", *(over_seeds(values, ".2f") for values in cells("maml"))]
    halves = [float(np.mean(values)) for values in cells("maml", "ci95")]
    yield ["MAML, one seed, ± over tasks", *(f"± {half:.2f}" for half in halves)]
    yield ["paper (one seed, 600 tasks)", *published("maml", depths)]
    yield ["pretrained, fine-tuned, mean", *(over_seeds(v, ".2f") for v in cells("pretrained"))]
    yield ["pretrained, fine-tuned, paper", *published("pretrained", depths)]


def published(name: str, depths: Sequence[int]) -> list[str]:
    """The figures of MAML's paper on sine waves, empty where it has none."""
    figures = PUBLISHED[name]
    return [f"{figures[depth]:.2f}" if depth in figures else "" for depth in depths]


def real_tables(table: str) -> Cells:
    """AUC and accuracy on real tables, of the learner and of scikit-learn's classifiers."""
    yield from scores_table(results_of(table)["tabular"])


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


def drawn(cells: Callable[[str], Cells]) -> Callable[[str], str]:
    """The writer of a table from that of its cells."""

    def writer(table: str) -> str:
        header, *rows = cells(table)
        return markdown(header, rows)

    return writer


def reports(table: str) -> str:
    """What the stored runs of a table have printed: their tables, and each note as a list item."""
    found = results_of(table).items()
    return "\n\n".join(as_page(report_of(table, name, result)) for name, result in found)


def report_of(table: str, row: str, result: dict[str, Any]) -> str:
    """What the run of a row has printed, with the command in place of its directory."""
    module = importlib.import_module(f"experiments.reports.{TABLES[table].experiment}")
    run = result["run"] | {"directory": f"`scripts/reproduce {table} {row}`"}
    printed: str = module.report({**result, "run": run})
    return printed


def as_page(report: str) -> str:
    """A report as Markdown: tables stand apart, text above one heads it, the rest makes a list.

    >>> print(as_page("errors\\n| a |\\n| :- |\\n3 seeds\\n\\n9 s"))
    errors
    <BLANKLINE>
    | a |
    | :- |
    <BLANKLINE>
    - 3 seeds
    - 9 s
    """
    lines = [line for line in report.split("\n") if line]
    end = 1 + max(i for i, line in enumerate(lines) if line.startswith("|"))
    groups = itertools.groupby(lines[:end], lambda line: line.startswith("|"))
    notes = ("\n  ".join(textwrap.wrap(f"- {line}", 116)) for line in lines[end:])
    return "\n\n".join([*("\n".join(group) for _, group in groups), "\n".join(notes)])


Writers = dict[str, tuple[Callable[[str], str], str]]
RESULTS: Writers = {
    "curves": (drawn(curves), "curves"),
    "maml-on-sine-waves": (drawn(maml_on_sines), "sine-waves"),
    "numbers-5way-1shot": (drawn(numbers), "numbers-5way-1shot"),
    "omniglot-5way-1shot": (drawn(omniglot), "omniglot-5way-1shot"),
    "sine-waves": (drawn(sines), "sine-waves"),
    "tabular": (drawn(real_tables), "tabular"),
    **{name: (reports, name) for name in ("numbers-in-full", "pictures", "dqn", "navigation")},
}
"""The writer of each place in a document, and the table whose stored results it shows."""
DOCUMENTS: dict[str, Writers] = {
    "results.md": RESULTS,
    "what-decides.md": {"what-decides": (drawn(what_decides), "what-decides")},
}


def written(document: str, writers: Writers) -> str:
    """The document with each table between its marks written anew."""
    for name, (writer, table) in writers.items():
        mark = re.compile(rf"(<!-- results/{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = writer(table).replace("\\", r"\\")  # `subn` reads one of two
        document, count = mark.subn(rf"\g<1>{text}\n\g<2>", document)
        assert count == 1, f"a document has {count} places for {name}"
    return document


def write() -> None:
    """Writes the tables of all documents and the figure anew."""
    figure.write()
    for name, writers in DOCUMENTS.items():
        write_text(DOCS / name, written((DOCS / name).read_text("utf-8"), writers))
