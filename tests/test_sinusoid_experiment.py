"""What the experiment on sine waves says of numbers that are known."""

import numpy as np
from scipy import stats

from experiments import sinusoid
from experiments.reports.sinusoid import DEPTHS, depths_of

MEANS = np.array([0.569, 0.578, 0.613])


def made_up(seeds):
    """A result as result.json held it from the beginning: of seed s and depth d a known error."""

    def tables(scale):
        return [
            {
                f"{shots}-shot/{depth}": {
                    "mean": scale * mean + depth,
                    "ci95": 0.02 + 0.001 * s,
                    "median": 0.4,
                }
                for shots in sinusoid.SHOTS
                for depth in DEPTHS
            }
            for s, mean in enumerate(MEANS[:seeds])
        ]

    run = {"steps": 70_000, "wall_seconds": 96.4, "compile_seconds": 2.2, "device": "1 x cpu"}
    return {
        "maml": tables(1.0),
        "pretrained": tables(2.0),
        "deviations": ["deviation: none"],
        "config": {"seed": 0, "seeds": seeds, "test_tasks": 6000},
        "run": {**run, "machine": "a box", "directory": "runs/a"},
    }


def rows(said):
    table = [line for line in said.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in split}


def test_what_maml_s_paper_has_stands_beside_exact_maml_alone():
    result = made_up(3)
    assert rows(sinusoid.report(result))["maml 5-shot, paper"] == ["", "0.67", "0.38", "0.35"]
    result["config"]["estimator"] = "first-order"
    found = rows(sinusoid.report(result))
    assert "maml 5-shot, paper" not in found
    assert "pretrained 5-shot, paper" in found


def test_of_several_seeds_the_interval_is_over_seeds_and_that_over_tasks_below_it():
    low, high = stats.t.interval(0.95, 2, MEANS.mean(), stats.sem(MEANS))
    said = sinusoid.report(made_up(3))
    found = rows(said)
    half = (high - low) / 2
    assert "mean squared error, ± 95 % over seeds (median)" in found
    for i, depth in enumerate(DEPTHS):
        shown = f"{MEANS.mean() + depth:.3f} ± {half:.3f} (0.400)"
        assert found["maml 5-shot"][i] == shown
        assert found["pretrained 5-shot"][i] == (
            f"{2 * MEANS.mean() + depth:.3f} ± {2 * half:.3f} (0.400)"
        )
        assert found["maml 5-shot, over tasks"][i] == "± 0.021"
    assert "70,000 steps; seeds 0 to 2, ± over seeds by Student's t; 6,000 test tasks" in said
    assert "deviation: none" in said


def test_of_a_single_seed_it_is_over_tasks():
    said = sinusoid.report(made_up(1))
    found = rows(said)
    assert "mean squared error, ± 95 % over tasks (median)" in found
    assert found["maml 5-shot"][0] == "0.569 ± 0.020 (0.400)"
    assert not any("over tasks" in title and "shot" in title for title in found)
    assert "seed 0 alone, which leaves no interval over seeds" in said


def test_the_inner_steps_of_training_have_a_column():
    """Results of before have none for them, and the paper has none either."""
    assert depths_of({"inner_steps": 32}) == (0, 1, 5, 10, 32)
    assert depths_of({"inner_steps": 5}) == depths_of({}) == DEPTHS
    result = made_up(1)
    result["config"]["inner_steps"] = 32
    assert len(rows(sinusoid.report(result))["maml 5-shot"]) == 4
    for name in ("maml", "pretrained"):
        for shots in sinusoid.SHOTS:
            result[name][0][f"{shots}-shot/32"] = result[name][0][f"{shots}-shot/10"]
    found = rows(sinusoid.report(result))
    assert found["mean squared error, ± 95 % over tasks (median)"][4] == "32 steps"
    assert found["maml 5-shot"][4] == found["maml 5-shot"][3]
    assert found["maml 5-shot, paper"] == ["", "0.67", "0.38", "0.35", ""]


def test_an_error_that_diverged_is_told_as_result_json_holds_it():
    result = made_up(3)
    for run in result["pretrained"]:
        run["5-shot/0"] = {"mean": "inf", "ci95": "nan", "median": "nan"}
    assert rows(sinusoid.report(result))["pretrained 5-shot"][0] == "inf ± nan (nan)"


def test_settings_that_are_not_the_paper_s_are_told():
    assert sinusoid.departures_of(sinusoid.Config()) == []
    changed = sinusoid.Config(steps=1, method=sinusoid.Config().method.__class__(inner_lr=0.5))
    assert sinusoid.departures_of(changed) == [
        "steps: 1 here, 70,000 in the recipe.",
        "inner lr: 0.5 here, 0.001 in the recipe.",
    ]
