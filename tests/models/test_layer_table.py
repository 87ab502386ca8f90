"""docs/layers.md says what the installed layers do when they are differentiated again."""

import numpy as np
import pytest

from tests.models.layer_table import (
    DOCUMENT,
    REACH,
    TABLE,
    cells,
    function,
    judged,
    rows,
)

WRITTEN = TABLE.written()
ROWS = {row.name: row for row in rows()}
CORE = ("jaxdl batch norm", "nn.LayerNorm")


def kind(cell):
    """A cell without its percentage, which is of a point alone."""
    return cell.partition(" off by")[0] + " off" * ("off by" in cell)


def test_the_document_has_all_rows_and_no_other_lines():
    lines = DOCUMENT.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("| ")] == list(TABLE.lines(rows(), WRITTEN))


@pytest.mark.parametrize("name", CORE)
def test_the_document_says_what_a_layer_does(name):
    assert [*map(kind, cells(ROWS[name]))] == [*map(kind, WRITTEN[name])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_whole_document_says_what_layers_do(name):
    assert [*map(kind, cells(ROWS[name]))] == [*map(kind, WRITTEN[name])]


def test_every_layer_of_jaxdl_is_right():
    own = {name: found for name, found in WRITTEN.items() if name.startswith("jaxdl")}
    assert len(own) >= 9
    assert all(set(found) <= {"right", "kink"} for found in own.values())


def test_a_wrong_derivative_is_seen():
    """That of a cubic of which two orders are a fiftieth too large."""
    nodes = np.polynomial.chebyshev.chebpts1(9) * REACH["generic"]
    read = 1 + 2 * nodes + 3 * nodes**2 / 2 + 500 * nodes**3 / 6
    assert judged(np.array([2, 3, 500.0]), read, REACH["generic"]) == ["right"] * 3
    assert judged(np.array([2.04, 3, 510.0]), read, REACH["generic"]) == [
        "off by 2 %",
        "right",
        "off by 2 %",
    ]
    assert judged(np.array([np.nan, 3, 500.0]), read, REACH["generic"])[0] == "NaN"


def test_points_of_a_row_are_what_their_names_say():
    row = function("row", lambda x: x)
    values = row.make()[1]["x"].ravel()
    assert np.abs(values).min() == 0.2
    assert np.diff(np.sort(values)).min() > 2 * REACH["generic"]
