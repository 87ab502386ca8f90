"""docs/migrating.md names what learn2learn has."""

import re
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

SOURCE = Path(sys.prefix) / "learn2learn-0.2.0" / "learn2learn"
PAGE = (ROOT / "docs" / "migrating.md").read_text("utf-8")


def names():
    """What is in code marks in the first column of the table of learn2learn, without arguments."""
    table = PAGE.partition("\n## learn2learn")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    return sorted({re.split(r"[(=]", each)[0] for each in re.findall(r"`(.*?)`", " ".join(cells))})


def texts(place):
    """The sources of a module, or of all modules in a folder."""
    path = SOURCE.joinpath(*place)
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}.*")
    return [each.read_text("utf-8") for each in files if each.suffix in (".py", ".pyx")]


def test_there_are_calls_to_look_for():
    assert len(names()) > 25


@pytest.mark.parametrize("name", names())
def test_learn2learn_has_this_name(name):
    """`data.Taskset` is defined in data; an argument, or a name without a place, is somewhere."""
    *place, last = name.split(".")
    defined = r"\b(class|def) " if place and place != ["learner"] and place != ["maml"] else r"\b"
    found = texts(place if "class" in defined else [])
    assert any(re.search(defined + re.escape(last) + r"\b", text) for text in found)
