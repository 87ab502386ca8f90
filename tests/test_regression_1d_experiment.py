"""The experiment on curves: what it says of known numbers, and tiny runs of it."""

import json

import numpy as np
import pytest
from scipy import stats

from experiments import regression_1d
from jaxdl.errors import InputError
from jaxdl.recipes.choice import with_learner
from jaxdl.recipes.learners import PROCESSES
from jaxdl.runs.config import unflat
from jaxdl.runs.run import RunFlags, open_run

MEANS = np.array([0.21, 0.26, 0.25])


def made_up(seeds, **changes):
    """A result of known numbers, as result.json holds it."""

    def scores(shift):
        names = ("log_likelihood", "squared_error", "context")
        return {name: {"mean": shift + i, "ci95": 0.02} for i, name in enumerate(names)}

    run = {"steps": 100_000, "wall_seconds": 96.4, "compile_seconds": 2.2, "device": "1 x cpu"}
    of_learner = [scores(mean) for mean in MEANS[:seeds]]
    return {
        "scores": {
            "cnp": {"rbf": of_learner, "sawtooth": of_learner},
            "gp": {"rbf": scores(1.5)},
        },
        "parameters": 215_682,
        "published": {"rbf": 0.26, "matern": 0.04},
        "config": {
            "learner": "cnp",
            "kernel": "rbf",
            "test_kernels": ["rbf", "sawtooth"],
            "tasks": 16,
            "seed": 0,
            "test_tasks": 48_000,
        },
        "run": {**run, "machine": "a box", "directory": "runs/a"},
    }


def rows(said):
    table = [line for line in said.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in split}


def test_the_table_has_the_learner_the_exact_posterior_and_the_paper():
    low, high = stats.t.interval(0.95, 2, MEANS.mean(), stats.sem(MEANS))
    said = regression_1d.report(made_up(3))
    found = rows(said)
    assert found["log-likelihood per point, ± 95 % over seeds"] == ["rbf", "sawtooth"]
    assert found["cnp, targets"] == [f"{MEANS.mean():.3f} ± {(high - low) / 2:.3f}"] * 2
    assert found["exact GP, targets"] == ["1.500 ± 0.020", ""]
    assert found["cnp, targets, paper"] == ["0.26", ""]
    assert found["exact GP, context"] == ["3.500 ± 0.020", ""]
    assert "trained on rbf for 100,000 steps of 16 tasks; seeds 0 to 2" in said
    alone = rows(regression_1d.report(made_up(1)))
    assert alone["cnp, targets"] == ["0.210 ± 0.020"] * 2
    assert "log-likelihood per point, ± 95 % over tasks" in alone


def config_of(folder, learner="cnp", own=(), **changes):
    flags = {"runs_dir": folder, "name": "run", "log_every": 2, "devices": 1}
    small = {"steps": 4, "tasks": 2, "test_tasks": 4, "decay_steps": 4, "seeds": 2}
    config = unflat(regression_1d.Config, small | changes | {"run": RunFlags(**flags)})
    return with_learner(config, learner, PROCESSES, **dict(own))


SMALL = {
    "cnp": {"width": 4},
    "canp": {"width": 4, "heads": 2},
    "convcnp": {"width": 2, "layers": 1, "density": 4},
    "lnp": {"width": 4, "samples": 3},
    "anp": {"width": 4, "heads": 2, "samples": 3},
    "tnp_d": {"width": 4, "heads": 2, "layers": 1},
    "maml": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("learner", PROCESSES)
def test_each_learner_trains_resumes_bit_for_bit_draws_and_reprints(learner, tmp_path, capsys):
    config = config_of(tmp_path / "whole", learner, SMALL[learner])
    result = regression_1d.main(config)
    printed = capsys.readouterr().out
    scores = result["scores"]
    assert {kernel: len(found) for kernel, found in scores[learner].items()} == {
        "rbf": 2,
        "matern": 2,
    }
    names = {"log_likelihood", "squared_error", "context"}
    assert scores["gp"]["rbf"].keys() == names
    for of_seeds in scores[learner].values():
        for found in of_seeds:
            assert found.keys() - {"joint_log_likelihood"} == names
            assert ("joint_log_likelihood" in found) == (learner in ("lnp", "anp"))
            assert all(np.isfinite(value["mean"]) for value in found.values())
    assert scores[learner]["rbf"][0] != scores[learner]["rbf"][1]
    assert f"{learner}, targets" in printed
    folder = tmp_path / "whole" / "regression_1d" / "run"
    for name in ("bands", "learning_curve"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert regression_1d.main(config) == result
    assert capsys.readouterr().out == printed

    for steps in (2, 4):
        short = config_of(tmp_path / "parts", learner, SMALL[learner], steps=steps)
        with open_run("regression_1d", short) as run:
            made = regression_1d.learner_of_curves(regression_1d.flat(short))
            regression_1d.train(short, run, made)
    lines = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder, tmp_path / "parts" / "regression_1d" / "run")
        for path in [path / "metrics.jsonl"]
    ]
    losses = [[line["loss"] for line in each if "loss" in line] for each in lines]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


@pytest.mark.slow
def test_sine_waves_have_no_exact_posterior(tmp_path):
    changes = {"kernel": "sines", "test_kernels": ("sines", "mixture")}
    result = regression_1d.main(config_of(tmp_path, own=SMALL["cnp"], **changes))
    assert result["scores"]["gp"] == {}
    assert set(result["scores"]["cnp"]) == {"sines", "mixture"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kernel": "cosine"}, "`kernel=cosine`: choose among rbf matern"),
        ({"test_kernels": ()}, "give at least one name"),
        ({"test_kernels": ("rbf", "rbf")}, "each name once"),
        ({"steps": 0}, "`steps=0`: choose at least 1"),
        ({"test_tasks": 1}, "`test_tasks=1`: choose at least 2"),
        ({"seed": 1_000_001}, "`seed=1000001`: choose at most"),
        ({"learner": "protonet"}, "`learner=protonet` predicts classes: choose among cnp canp"),
        ({"kernel": "sines", "learner": "convcnp"}, "`reach=2.5`: sine waves go from -5 to 5"),
    ],
)
def test_mistakes_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        regression_1d.main(config_of(tmp_path, **changes))


def test_the_paper_trained_on_one_kind_of_curve():
    other = made_up(1)
    other["config"]["kernel"] = "sawtooth"
    assert "cnp, targets, paper" not in rows(regression_1d.report(other))
