"""The public face: what `import jaxdl` offers, what it costs, and that each name shows its use."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import jaxdl

STUB = Path(jaxdl.__file__).with_suffix(".pyi")
NAMES = [name for name in jaxdl.__all__ if not name.startswith("_")]


def in_a_new_process(code: str) -> object:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def test_the_stub_says_the_same():
    """Each line `from MODULE import NAME as NAME`: the form that type checkers take for public."""
    tree = ast.parse(STUB.read_text("utf-8"))
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in lines for alias in node.names)
    stub = {alias.name: node.module for node in lines for alias in node.names}
    assert stub == jaxdl._HOMES
    assert "__version__: str" in STUB.read_text("utf-8")


def test_importing_it_imports_nothing_heavy():
    heavy = ["flax", "jax", "jaxtyping", "numpy", "optax"]
    code = (
        "import json, sys, jaxdl; jaxdl.__version__; dir(jaxdl)\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    assert in_a_new_process(code) == []


def test_a_name_is_the_thing_itself_and_stays():
    code = (
        "import json, jaxdl; found = jaxdl.maml\n"
        "from jaxdl.meta.maml import maml\n"
        "print(json.dumps([found is maml, 'maml' in vars(jaxdl), jaxdl.maml is maml]))"
    )
    assert in_a_new_process(code) == [True, True, True]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'mamml': see dir"):
        getattr(jaxdl, "mamml")  # noqa: B009  written out, mypy would see it
    assert "maml" in dir(jaxdl)
    assert not set(dir(jaxdl)) & {"importlib", "Any"}


def test_no_name_is_hidden_by_a_module_of_jaxdl():
    rooms = {path.stem for path in Path(jaxdl.__file__).parent.iterdir()}
    assert not rooms & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_shows_its_use(name):
    """A doctest, which pytest runs where it stands, that says the name as a user would."""
    found = getattr(jaxdl, name)
    if typing.get_origin(found) is typing.Annotated:
        return  # an alias for annotations: it has no docstring of its own
    text = inspect.getdoc(found) or ""
    lines = [example.source for example in doctest.DocTestParser().get_examples(text)]
    assert any(f"jaxdl.{name}" in line for line in lines), f"no doctest with jaxdl.{name}"
