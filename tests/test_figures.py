"""Each measured figure of README and of the experiments is one of a stored run.

In docs/results.md it is one of its section."""

import importlib
import re
from functools import cache

import pytest

from experiments.tables import document, stored
from experiments.tables.rows import TABLES
from tests.project import ROOT

NUMBER = re.compile(r"(?<![\w.:/])\d+\.\d+(?![\w.]*\d)")
PUBLISHED = re.compile(
    r"arXiv:\S+|\[[^\]]*\]\([^)]*\)|`[^`]*`|jax 0\.\d+|Python 3\.\d+|section \d\.\d"
)
"""Words with a point that are no measurements."""
OTHERWISE = {"0.01"}  # the deviation of the start in MAML's code
DIFFERENCES = {"0.006": ("0.983", "0.977"), "0.017": ("0.950", "0.933")}
"""Figures of the text that are differences of two figures of its tables."""
PLACE = re.compile(r"<!-- results/\S+ -->\n.*?<!-- end -->", re.DOTALL)


@cache
def known(experiment):
    """The decimal numbers of all that is printed of the stored rows of an experiment."""
    found = []
    for name, table in TABLES.items():
        if table.experiment == experiment:
            found.append(document.reports(name) if stored.results_of(name) else "")
    for writers in document.DOCUMENTS.values():
        found += [
            writer(name)
            for writer, name in writers.values()
            if TABLES[name].experiment == experiment
        ]
    return [float(number) for number in NUMBER.findall("\n".join(found))]


def unknown(text, numbers):
    """The decimal numbers of a text that round none of these.

    >>> unknown("0.60 and 0.26, after 0.7", [0.598, 0.2604])
    ['0.7']
    """
    return [
        shown
        for shown in NUMBER.findall(PUBLISHED.sub("", text))
        if not any(
            abs(float(shown) - number) <= 0.501 * 10 ** -len(shown.split(".")[1])
            for number in numbers
        )
    ]


def rows_of_readme():
    for line in (ROOT / "README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if line.startswith("| ") and len(cells) == 5 and not cells[4].startswith(("our", ":-")):
            yield pytest.param(cells[3], cells[4], id=cells[0][:40])


@pytest.mark.parametrize(("commands", "told"), [*rows_of_readme()])
def test_a_figure_of_readme_is_that_of_a_stored_run(commands, told):
    experiments = re.findall(r"`(\w+)", commands)
    assert experiments
    numbers = [number for experiment in experiments for number in known(experiment)]
    assert not unknown(told, numbers)


@pytest.mark.parametrize("experiment", sorted({table.experiment for table in TABLES.values()}))
def test_a_figure_of_an_experiment_is_that_of_a_stored_run(experiment):
    assert "\nResult:" in importlib.import_module(f"experiments.{experiment}").__doc__
    said = importlib.import_module(f"experiments.{experiment}").__doc__
    assert not unknown(said.partition("\nResult:")[2], known(experiment))


def sections():
    for name in document.DOCUMENTS:
        text = (stored.DOCS / name).read_text("utf-8")
        for i, section in enumerate(re.split(r"\n(?=## )", text)):
            yield pytest.param(name, section, id=f"{name} {i} {section[3:30].splitlines()[0]}")


@pytest.mark.parametrize(("name", "section"), [*sections()])
def test_a_figure_of_the_text_is_one_of_its_tables(name, section):
    writers = document.DOCUMENTS[name]
    places = re.findall(r"<!-- results/(\S+) -->", section)
    experiments = {TABLES[writers[place][1]].experiment for place in places}
    numbers = [number for experiment in experiments for number in known(experiment)]
    missing = set(unknown(PLACE.sub("", section), numbers)) - OTHERWISE
    for shown in missing & DIFFERENCES.keys():
        one, other = DIFFERENCES[shown]
        assert not unknown(f"{one} {other}", numbers)
        assert f"{float(one) - float(other):.3f}" == shown
    assert not missing - DIFFERENCES.keys()
