"""docs/migrating.md names what learn2learn has."""

import re
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

SOURCE = Path(sys.prefix) / "learn2learn-0.2.0" / "learn2learn"
PAGE = (ROOT / "docs" / "migrating.md").read_text("utf-8")


def names():
    """The calls in the first column of the table of learn2learn, and those of the example."""
    table = PAGE.partition("\n## learn2learn")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    quoted = re.findall(r"`(.*?)`", " ".join(cells))
    found = {re.split(r"[(=]", each)[0].rpartition(".")[2] for each in quoted}
    return sorted(found | {"MAML", "adapt", "clone"})


def test_there_are_calls_to_look_for():
    assert len(names()) > 25


@pytest.mark.parametrize("name", names())
def test_learn2learn_has_this_name(name):
    files = [path for path in SOURCE.rglob("*.py*") if path.suffix in (".py", ".pyx")]
    pattern = re.compile(rf"\b{re.escape(name)}\b")
    assert any(pattern.search(path.read_text("utf-8")) for path in files)
