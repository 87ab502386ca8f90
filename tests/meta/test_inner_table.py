"""docs/inner-optimisers.md says what the installed Optax does, and so does the probe."""

import re
import warnings

import pytest

from jaxdl.errors import InputError
from jaxdl.meta.probe.verdict import check
from jaxdl.types import MetaLearner
from tests.meta.inner_table import COLUMNS, DOCUMENT, ROWS, TABLE, cells

WRITTEN = TABLE.written()
CORE = (
    "sgd",
    "inner.adam",
    "inner.clip_by_global_norm",
    "adam",
    "radam",
    "clip_by_global_norm(1e6)",
    "sign_sgd",
    "lbfgs, linesearch=None",
    "lbfgs",
)
BY_VALUES = {"sgd, backtracking line search"}
"""It compares losses, in which a step of 1e-15 does not show; `maml` gives it none."""

NOT_ASKED = {"contrib.sophia"}
"""It wants an argument that the probe does not have."""

IN_VECTORS = {"contrib.muon"}
"""It is another optimiser for vectors, and the probe has a matrix."""


def by_name(names):
    return [pytest.param(row, id=row.name) for row in ROWS if names is None or row.name in names]


def alike(found, written):
    """Equal, but for the last digit of a share, and a decade of a very large derivative."""
    if found == written:
        return True
    if not all(re.fullmatch(r"[0-9.e-]+", cell) for cell in (found, written)):
        return False
    large = "e" in written and "-" not in written
    ratio = float(found) / float(written) if float(written) else 0.0
    return 1 / 11 < ratio < 11 if large else 0.4 < ratio < 2.2  # 0.14 and 0.16 are 0.1 and 0.2


def test_the_document_holds_what_is_measured_and_nothing_else():
    lines = DOCUMENT.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("| ")] == list(TABLE.lines(ROWS, WRITTEN))


@pytest.mark.parametrize("row", by_name(CORE))
def test_the_document_says_what_optax_does(row):
    found = cells(row, both=False)
    assert all(map(alike, found, WRITTEN[row.name])), (found, WRITTEN[row.name])


@pytest.mark.slow
@pytest.mark.parametrize("row", by_name(None))
def test_the_whole_document_says_what_optax_does(row):
    found = cells(row)
    assert all(map(alike, found, WRITTEN[row.name])), (found, WRITTEN[row.name])


@pytest.mark.parametrize("row", by_name(None))
def test_the_probe_says_what_the_document_says(row):
    """Two measurements that share no code: of a net, and of six numbers without one."""
    generic, dead, fitted, _, second = WRITTEN[row.name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if generic in ("NaN", "error"):
            with pytest.raises(InputError, match="meta-gradient"):
                check(row.tx, steps=3, first_order=False)
            return
        check(row.tx, steps=3, first_order=False)
    said = " ".join(str(each.message) for each in caught)
    if row.name in NOT_ASKED:
        assert not said
        return
    assert ("NaN" in said) == ("NaN" in dead + fitted)
    if row.name not in IN_VECTORS and "makes the parameters NaN" not in said:
        assert ("as of a dead unit" in said) == ("NaN" in dead)
    assert ("first-order MAML" in said) == (second == "0")
    assert ("second-order part of the meta-gradient is wrong" in said) == (generic == "wrong")
    if "first-order MAML" not in said and row.name not in BY_VALUES:
        assert ("meta-gradient is wrong where" in said) == (fitted == "wrong")


def test_the_example_of_the_document_runs_without_a_warning():
    found = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)[1], found)
    assert isinstance(found["learner"], MetaLearner)


def test_a_large_number_and_a_share_may_differ_a_little_and_a_word_may_not():
    assert alike("1e11", "1e10")
    assert not alike("1e13", "1e11")
    assert alike("0.4", "0.5")
    assert not alike("0.05", "0.5")
    assert not alike("1e-10", "1e-09")
    assert not alike("0.5", "0")
    assert not alike("exact", "NaN")
    assert len(COLUMNS) == len(WRITTEN["sgd"])
