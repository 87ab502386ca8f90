"""docs/results.md says what the stored results say, and these name no machine."""

import json

import pytest

from tests import results


def test_the_tables_of_the_document_are_those_of_the_stored_results():
    text = results.DOCUMENT.read_text("utf-8")
    assert results.written(text) == text, "run .venv/bin/python -m tests.results"


@pytest.mark.parametrize(
    "path", sorted(results.RESULTS.rglob("*.json")), ids=lambda path: path.stem
)
def test_a_stored_result_has_what_makes_it_again_and_no_folder(path):
    text = path.read_text("utf-8")
    found = json.loads(text)
    assert results.stored({**found, "run": {**found["run"], "directory": "x"}}) == found
    assert not any(place in text for place in ("/tmp", "/home", "/root", "/work"))
    assert {"command", "packages", "device", "steps", "wall_seconds"} <= found["run"].keys()
    assert {"seed", "seeds", "learner"} <= found["config"].keys()
    assert found["batch_norm"]
    assert found["split"]


def test_one_seed_has_no_interval():
    assert results.over_seeds([97.123], ".1f") == "97.1 (1 seed)"
    assert results.over_seeds([1.0, 2.0, 3.0], ".2f") == "2.00 ± 2.48"  # 4.303 / sqrt(3)
