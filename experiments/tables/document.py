"""The tables of docs/results.md and docs/what-decides.md, written from what is stored."""

import importlib
import re
import textwrap
from collections.abc import Callable
from typing import Any

from experiments.reports.tabular import scores_table
from experiments.tables import figure
from experiments.tables.classifiers import classifiers
from experiments.tables.few_shot import numbers, omniglot, what_decides
from experiments.tables.processes import curves
from experiments.tables.rows import TABLES
from experiments.tables.sines import from_the_codes_start, maml_on_sines, sines
from experiments.tables.stored import DOCS, results_of
from experiments.tables.values import Cells
from jaxdl.files.atomic import write_text
from jaxdl.report.tables import markdown


def real_tables(table: str) -> Cells:
    """AUC and accuracy on real tables, of the learner and of scikit-learn's classifiers."""
    yield from scores_table(results_of(table)["tabular"])


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
    tables = "\n".join(lines[:end])
    # A header is the line above the one that tells the columns' sides.
    tables = re.sub(r"\n(?=\|.*\n\| :-)|(?<=\|)\n(?!\|)", "\n\n", tables)
    notes = ("\n  ".join(textwrap.wrap(f"- {line}", 116)) for line in lines[end:])
    return "\n\n".join([tables, "\n".join(notes)])


REPORTED = (
    *("numbers-in-full", "pictures", "long-memory", "limited-data", "capacity", "transfer"),
    *("multitask", "many-questions", "continual", "dqn", "navigation"),
)
"""The tables whose place has what the runs of their rows have printed."""
Writers = dict[str, tuple[Callable[[str], str], str]]
RESULTS: Writers = {
    "curves": (drawn(curves), "curves"),
    "maml-on-sine-waves": (drawn(maml_on_sines), "sine-waves"),
    "numbers-5way-1shot": (drawn(numbers), "numbers-5way-1shot"),
    "omniglot-5way-1shot": (drawn(omniglot), "omniglot-5way-1shot"),
    "sine-start": (drawn(from_the_codes_start), "sine-start"),
    "sine-waves": (drawn(sines), "sine-waves"),
    "tabular": (drawn(real_tables), "tabular"),
    "classifiers": (drawn(classifiers), "mnist"),
    **{name: (reports, name) for name in REPORTED},
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
