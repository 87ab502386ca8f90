"""The experiment on tables: what it says of known numbers, and a tiny run of it."""

import json

import numpy as np
import pytest

from experiments import tabular
from experiments.reports.tabular import scores_table
from jaxdl.errors import InputError
from jaxdl.recipes.tabular import learner_of_tables
from jaxdl.runs.config import flat, unflat
from jaxdl.runs.run import RunFlags, open_run

SMALL = {"width": 4, "layers": 1, "features": 6, "classes": 3, "shots": 8, "least_shots": 6}
FEW = {"steps": 4, "tasks": 2, "queries": 3, "splits": 2, "members": 2, "validation_tasks": 2}
SCORES = np.array([[0.9, 0.8, 0.7], [0.7, 0.8, 0.9]])
"""Of two seeds on three splits."""


def made_up():
    """A result of known numbers, as result.json holds it."""
    of = {"auc": SCORES.tolist(), "accuracy": (SCORES / 2).tolist()}
    forest = {"auc": [[0.5, 0.6, 0.7]], "accuracy": [[0.1, 0.2, 0.3]]}
    run = {"steps": 1600, "wall_seconds": 96.4, "compile_seconds": 2.2, "device": "2 x cpu"}
    config = {"tasks": 4, "sizes": 2, "seed": 0, "seeds": 2, "splits": 3, "features": 20}
    return {
        "scores": {"iris": {"tabular": of, "random_forest": forest}},
        "synthetic": {"accuracy": [0.6, 0.7], "loss": [1.0, 0.9]},
        "rows": [100, 50],
        "parameters": 215_682,
        "config": config,
        "run": {**run, "machine": "a box", "directory": "runs/a"},
    }


def test_the_table_has_each_method_and_its_interval_over_splits():
    """1.96 * 0.1 / sqrt(3) for the forest; the mean over seeds is 0.8 for each split."""
    header, *rows = scores_table(made_up())
    assert header == ["± 95 % over splits", "iris", "mean"]
    found = {row[0]: row[1:] for row in rows}
    assert found["ROC AUC, in context"] == ["0.800 ± 0.000"] * 2
    assert found["ROC AUC, random forest"] == ["0.600 ± 0.113"] * 2
    assert found["accuracy, random forest"] == ["0.200 ± 0.113"] * 2
    said = tabular.report(made_up())
    assert "for 1,600 steps of 8; seeds: 2, from 0; 215,682 parameters" in said
    assert "accuracy 0.650, loss 0.950" in said


def config_of(folder, **changes):
    flags = RunFlags(runs_dir=folder, name="run", log_every=2, devices=1)
    return unflat(tabular.Config, SMALL | FEW | {"eval_every": 2, "run": flags} | changes)


@pytest.mark.slow
def test_it_trains_resumes_bit_for_bit_is_judged_and_reprints(tmp_path, capsys):
    config = config_of(tmp_path / "whole", decay_steps=4, seeds=2)
    result = tabular.main(config)
    printed = capsys.readouterr().out
    assert set(result["scores"]) == {"iris", "wine", "breast_cancer"}  # digits has ten classes
    for methods in result["scores"].values():
        assert np.shape(methods["tabular"]["auc"]) == (2, 2)
        assert np.shape(methods["knn"]["accuracy"]) == (1, 2)
        assert np.mean(methods["random_forest"]["auc"]) > 0.9
    assert "ROC AUC, in context" in printed
    folder = tmp_path / "whole" / "tabular" / "run"
    assert (folder / "learning_curve.png").stat().st_size > 10_000
    assert tabular.main(config) == result
    assert capsys.readouterr().out == printed

    for steps in (2, 4):
        short = config_of(tmp_path / "parts", decay_steps=4, seeds=2, steps=steps)
        with open_run("tabular", short) as run:
            tabular.train(short, run, learner_of_tables(flat(short)))
    lines = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / "metrics.jsonl", tmp_path / "parts/tabular/run/metrics.jsonl")
    ]
    assert lines[0] == lines[1]
    assert {line["split"] for line in lines[0]} == {"train", "validation"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": 1}, "`classes=1`: choose at least 2"),
        ({"width": 5, "heads": 2}, "a tabular transformer cannot have width=5, heads=2"),
        ({"least_shots": 2}, "as many shots as classes"),
        ({"seed": 1_000_001}, "`seed=1000001`: choose at most"),
        ({"eval_every": 3}, "`eval_every=3` must be a multiple of `log_every=2`"),
    ],
)
def test_mistakes_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        tabular.main(config_of(tmp_path, **changes))
