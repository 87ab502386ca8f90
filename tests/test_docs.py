"""The pages of the site, without building it: links, names, and the code of the tutorials.

`scripts/docs` builds the site and runs the tutorials.
"""

import importlib.util
import re
from typing import Any

import numpy as np
import pytest

import jaxdl
from tests.project import ROOT

DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "api"]
TUTORIALS = [path for path in PAGES if path.parent.name == "tutorials"]


def cells(path):
    """The code of a tutorial, by cells."""
    found = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    return [str(code) for code in found]


@pytest.mark.parametrize("name", ["index", "faq", "migrating", "devices"])
def test_the_python_of_a_page_runs_from_top_to_bottom(name):
    text = (DOCS / f"{name}.md").read_text("utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, name, "exec"), names)
    assert np.isfinite(names["fitted"].history["loss"]).all()


def test_what_pages_say_in_passing_names_what_there_is():
    """`jaxdl.NAME` in code marks, outside of the blocks of code."""
    for path in PAGES:
        found = re.findall(r"`jaxdl\.([a-z_0-9]+)[`(]", path.read_text("utf-8"))
        assert all(hasattr(jaxdl, name) for name in set(found)), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def anchors(text):
    """The names that MyST gives to the headings of a page, as GitHub does."""
    headings = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_to_a_heading_name_one(path):
    """The build does not tell: a warning for it would also tell of links to files of the code."""
    text = path.read_text("utf-8")
    for link, heading in re.findall(r"\]\((?!https:)([^)#]*)#([^)]+)\)", text):
        page = path.parent / link if link else path
        assert heading in anchors(page.read_text("utf-8")), f"{link}#{heading}"


def test_the_name_of_a_heading_is_that_of_github():
    assert anchors("# A page\n\n## Why is `it` so, here?\n") == {"a-page", "why-is-it-so-here"}


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^[\w/-]+$", (DOCS / "index.md").read_text("utf-8"), re.MULTILINE)
    names = [path.relative_to(DOCS).as_posix().removesuffix(".md") for path in PAGES]
    assert sorted(listed) == sorted({*names, "api/index"} - {"index"})


def test_the_reference_has_every_public_name_once():
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    assert spec
    assert spec.loader
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    found = [name for names in conf.public_names().values() for _, name in names]
    assert sorted(found) == sorted(set(jaxdl.__all__) - {"__version__"})
    assert all(conf.directive(*each) for names in conf.public_names().values() for each in names)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_uses_names_that_there_are(path):
    assert len(cells(path)) >= 3
    for code in cells(path):
        compile(code, str(path), "exec")
        assert all(hasattr(jaxdl, name) for name in re.findall(r"\bjaxdl\.(\w+)", code))
