"""A table by hand, and each mistake in one with its line and column."""

import re

import numpy as np
import pytest

from jaxdl.data.sets.csv_table import MOST_TEXTS, read_table
from jaxdl.errors import InputError

TEXT = """\ufeffacid,colour,sugar,grade,vineyard
3.1,red,-1e1,7,north
2.9,white,0,5.5,north

3.0,"red, dark",4,6,south
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "wine.csv"
    file.write_text(TEXT, encoding="utf-8")
    return file


def test_numbers_categories_target_and_tasks(path):
    table = read_table(path, "grade", task="vineyard")
    assert table.columns == (
        "acid",
        "sugar",
        "colour=red",
        "colour=red, dark",
        "colour=white",
    )
    np.testing.assert_array_equal(table.numbers, [[3.1, -10], [2.9, 0], [3.0, 4]])
    np.testing.assert_array_equal(table.categories, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(table.target, [7, 5.5, 6])
    assert table.target.dtype == np.float64
    assert table.tasks.tolist() == ["north", "north", "south"]


def test_a_target_of_texts_is_a_class_and_numbers_can_be_one(path):
    assert read_table(path, "colour").target.tolist() == ["red", "white", "red, dark"]
    table = read_table(path, "grade", kind="class")
    assert table.target.tolist() == ["7", "5.5", "6"]
    assert table.tasks is None
    assert "vineyard=north" in table.columns


def test_columns_of_one_kind_alone(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n1\tx\n2\ty\n")
    assert read_table(path, "b").categories.shape == (2, 0)
    assert read_table(path, "a").numbers.shape == (2, 0)
    np.testing.assert_array_equal(read_table(path, "b").numbers, [[1], [2]])


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("a,b\n1,2\n,3\n", {}, "t.csv, line 3: the cell in column 'a' is empty. Fill it, or"),
        ("a,b\n1,2\n4, \n", {}, "line 3: the cell in column 'b' is empty"),
        ("a,b\n1,2\nO.1,3\n4,5\n", {}, "line 3: column 'a' has 'O.1' among numbers. Write a"),
        ("a,b\n1,2\nnan,3\n", {}, "line 3: column 'a' has nan. Write a number"),
        ("a,b\n1,2\n3,inf\n", {}, "line 3: column 'b' has inf"),
        ("a,b\n1,2\n\n3\n", {}, "t.csv, line 4: 1 cells, but 2 columns. Correct it"),
        ("a,a\n1,2\n", {}, "has two columns 'a'. Name each column once"),
        ("a,,b\n1,2,3\n", {}, "has a column without a name"),
        ("a,b\n", {}, "has no rows"),
        ("", {}, "has no rows"),
        ("b\n1\n", {}, "has no column beside the target and the task"),
        ("a,b\n1,2\n", {"target": "c"}, "has no column 'c': `target=` names one of a, b"),
        ("a,b\n1,2\n", {"task": "c"}, "has no column 'c': `task=` names one of a, b"),
        ("a,b\n1,2\n", {"task": "b"}, "`task=b` is the target, too"),
        ("a,b\n1,x\n", {"kind": "number"}, "column 'b' of .* has the text 'x'. Write numbers"),
        ('a,b\n1,"x\n', {}, "is no CSV file in UTF-8"),
    ],
)
def test_what_is_refused(text, arguments, words, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(path, **({"target": "b"} | arguments))


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "none.csv", "a")
    path = tmp_path / "latin.csv"
    path.write_bytes("a,b\n1,\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match=re.escape("is no CSV file in UTF-8")):
        read_table(path, "b")


def test_a_column_of_names_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"name {i},{i}" for i in range(MOST_TEXTS + 1)]
    path.write_text("\n".join(["who,b", *rows]))
    with pytest.raises(InputError, match=r"column 'who' of .* has 101 different texts. Leave the"):
        read_table(path, "b")
    path.write_text("\n".join(["who,b", *rows[:-1]]))
    assert read_table(path, "b").categories.shape == (MOST_TEXTS, MOST_TEXTS)


def test_digits_that_an_underscore_divides_are_a_text(tmp_path):
    """Python reads 1_1 as 11, so two codes would be one."""
    path = tmp_path / "codes.csv"
    path.write_text("code,y\n1_1,1_0\n11,10\n1_10,10\n")
    table = read_table(path, "y", kind="class")
    assert table.columns == ("code=11", "code=1_1", "code=1_10")
    assert table.target.tolist() == ["1_0", "10", "10"]


def test_numbers_keep_the_digits_that_float32_has_not(tmp_path):
    path = tmp_path / "times.csv"
    times = [1_700_000_000 + 60 * minute for minute in range(1440)]
    path.write_text("time,y\n" + "".join(f"{time},1\n" for time in [*times, 1e39]))
    assert len(set(read_table(path, "y").numbers[:, 0].tolist())) == 1441


def test_a_target_of_such_digits_is_no_class_unless_it_is_said(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text("x,y\n1,2.5\n2,1_000.5\n3,3.5\n")
    with pytest.raises(
        InputError, match=r"has digits with `_` between them. Write numbers without"
    ):
        read_table(path, "y")
    assert read_table(path, "y", kind="class").target.tolist() == ["2.5", "1_000.5", "3.5"]
