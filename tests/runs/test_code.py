"""A function from a file: its text and that of the modules beside it are its identity."""

import sys

import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.runs.code import load_code

MINE = """
import math

import jaxdl
import helper
from parts import deep


def double(x):
    return helper.TIMES * x + deep.ZERO


other = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text("import below\nTIMES = below.TWO\n")
    (tmp_path / "below.py").write_text("TWO = 2\n")
    (tmp_path / "unused.py").write_text("raise SystemExit\n")
    (tmp_path / "jaxdl.py").write_text("raise SystemExit('not this one')\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "deep.py").write_text("ZERO = 0\n")
    return tmp_path


def test_it_is_the_function_of_the_file(folder):
    code = load_code(f"{folder}/mine.py:double")
    assert code.function(21) == 42
    assert code.function.__name__ == "double"


def test_the_texts_are_those_that_are_imported_and_lie_beside_it(folder):
    texts = dict(load_code(f"{folder}/mine.py:double").texts)
    assert set(texts) == {
        "mine.py",
        "helper.py",
        "below.py",
        "parts/__init__.py",
        "parts/deep.py",
    }
    assert texts["mine.py"] == MINE


@pytest.mark.parametrize("name", ["mine.py", "helper.py", "below.py", "parts/deep.py"])
def test_another_text_is_another_digest(name, folder):
    before = load_code(f"{folder}/mine.py:double").digest
    assert load_code(f"{folder}/mine.py:double").digest == before
    with (folder / name).open("a") as file:
        file.write("# changed\n")
    assert load_code(f"{folder}/mine.py:double").digest != before


def test_a_text_that_is_not_imported_and_the_place_change_nothing(folder, tmp_path_factory):
    code = load_code(f"{folder}/mine.py:double")
    (folder / "unused.py").write_text("")
    assert load_code(f"{folder}/mine.py:double").digest == code.digest
    copy = tmp_path_factory.mktemp("copy")
    code.keep(copy)
    again = load_code(f"{copy}/mine.py:double")
    assert again.digest == code.digest
    assert again.function(1) == 2


def test_another_function_of_the_file_is_another_digest(folder):
    with (folder / "mine.py").open("a") as file:
        file.write("\n\ndef triple(x):\n    return 3 * x\n")
    first, second = (load_code(f"{folder}/mine.py:{name}") for name in ("double", "triple"))
    assert first.digest != second.digest


def test_another_name_of_a_function_is_its_name(folder):
    with (folder / "mine.py").open("a") as file:
        file.write("\n\ntwice = double\n")
    assert load_code(f"{folder}/mine.py:twice").name == "twice"


def test_two_versions_of_a_module_beside_it_do_not_meet(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    load_code(f"{folder}/mine.py:double").keep(other)
    (other / "below.py").write_text("TWO = 5\n")
    old, new = (load_code(f"{place}/mine.py:double").function for place in (folder, other))
    assert (old(1), new(1)) == (2, 5)
    assert not {"helper", "below", "parts", "parts.deep"} & set(sys.modules)


def test_an_import_leaves_the_modules_and_the_path_as_they_were(folder, monkeypatch):
    own = type(sys)("helper")
    monkeypatch.setitem(sys.modules, "helper", own)
    before = list(sys.path)
    assert load_code(f"{folder}/mine.py:double").function(1) == 2
    assert sys.modules["helper"] is own
    assert sys.path == before
    assert not list(folder.rglob("__pycache__"))


def test_a_dataclass_and_a_string_annotation_find_their_module(folder):
    (folder / "typed.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "import typing\n"
        "@dataclasses.dataclass\n"
        "class Point:\n"
        "    x: int = 3\n"
        "def hints(point: Point = Point()):\n"
        "    return typing.get_type_hints(hints)['point'](4).x\n"
    )
    assert load_code(f"{folder}/typed.py:hints").function() == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py", "names no function. Write path/to/file.py:function"),
        ("mine.py:", "names no function"),
        ("none.py:double", "there is no file .*none.py. Write path/to/file.py:function"),
        ("mine.py:triple", "mine.py has no function triple. It has double"),
        ("mine.py:other", "has no function other. It has double"),
        ("partial.py:f", "has no function f. It has none at all"),
        ("broken.py:f", r"broken.py, line 2: .*Correct the file"),
        ("raises.py:f", r"raises.py, line 3: ZeroDivisionError: division by zero"),
        ("lacks.py:f", r"lacks.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("bytes.py:f", r"bytes.py cannot be read"),
    ],
)
def test_what_is_refused(name, words, folder):
    (folder / "broken.py").write_text("x = 1\ndef f(:\n")
    (folder / "raises.py").write_text("def f():\n    return 1\nx = 1 / 0\n")
    (folder / "lacks.py").write_text("import nowhere\n")
    (folder / "partial.py").write_text("import functools\nf = functools.partial(max, 3)\n")
    (folder / "bytes.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=words):
        load_code(f"{folder}/{name}")


def test_a_folder_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        load_code(f"{folder}/mine.py:double").keep(tmp_path / "file" / "learner")
