"""What the experiment on few-shot classification says of numbers that are known."""

import copy

import numpy as np
import pytest
from scipy import stats

from experiments.reports import few_shot as words

ACCURACY = [0.7071, 0.7272, 0.7473]
HALF = [0.0252, 0.0261, 0.0249]


def made_up(seeds, paper=None):
    """A result as result.json held it from the beginning."""
    runs = [
        {"accuracy": mean, "ci95": half, "loss": 0.8}
        for mean, half in zip(ACCURACY, HALF, strict=True)
    ]
    config = {"data": "numbers", "ways": 5, "shots": 1, "test_episodes": 600}
    config |= {"test_queries": 5, "test_inner_steps": 3, "seed": 4, "seeds": seeds}
    run = {"steps": 100, "wall_seconds": 61.4, "compile_seconds": 2.2, "device": "1 x cpu"}
    return {
        "maml": runs[:seeds],
        "pretrained": [{**run, "accuracy": 0.5} for run in runs[:seeds]],
        "nearest_centroid": [{"accuracy": 0.4594, "ci95": 0.0051, "loss": 1.0}],
        "best_steps": [100] * seeds,
        "fine_tuning_rate": 0.1,
        "paper": paper,
        "batch_norm": "by the batch",
        "split": "test: 9 classes",
        "deviations": [],
        "config": config,
        "run": {**run, "machine": "a box", "directory": "runs/a"},
    }


def cells(said):
    """The table as lists of words, the rule left out."""
    table = [line for line in said.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [rows[0], *rows[2:]]


def test_of_several_seeds_the_interval_is_over_seeds_and_that_over_episodes_beside_it():
    """By SciPy. The mean of the seeds' intervals over episodes, 2.54, is not the interval."""
    low, high = stats.t.interval(0.95, 2, np.mean(ACCURACY), stats.sem(ACCURACY))
    half = 100 * (high - low) / 2
    assert f"{half:.2f}" == "4.99"
    said = words.report(made_up(3))
    header, maml, pretrained, centroid = cells(said)
    assert header == [
        "numbers 5-way 1-shot, accuracy in %",
        "mean, ± 95 % over seeds",
        "± 95 % over episodes",
        "by seed",
    ]
    assert maml == ["MAML", "72.72 ± 4.99", "2.54", "70.71 72.72 74.73"]
    assert pretrained[1:] == ["50.00 ± 0.00", "2.54", "50.00 50.00 50.00"]
    # Nothing of it is trained, so that no seed is another.
    assert centroid == ["nearest centroid of pixels", "45.94", "0.51", ""]
    assert "seeds 4 to 6, ± over seeds by Student's t" in said


def test_of_a_single_seed_it_is_over_episodes():
    said = words.report(made_up(1))
    header, maml, _, centroid = cells(said)
    assert header[1:] == ["mean, ± 95 % over episodes"]
    assert maml == ["MAML", "70.71 ± 2.52"]
    assert centroid[1:] == ["45.94 ± 0.51"]
    assert "seed 4 alone, which leaves no interval over seeds" in said


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_the_paper_has_stands_below_with_its_own_interval(seeds):
    result = made_up(seeds, paper="98.7 ± 0.4")
    before = copy.deepcopy(result)
    last = cells(words.report(result))[-1]
    assert last[:2] == ["MAML, published, ± over episodes", "98.7 ± 0.4"]
    assert result == before


def test_the_untrained_learner_has_a_row_and_a_line():
    result = made_up(1)
    assert "untrained" not in words.report(result)  # a run of before
    result["untrained"] = [{"accuracy": 0.2, "ci95": 0.01, "loss": 1.6}]
    said = words.report(result)
    assert cells(said)[2] == ["MAML, untrained", "20.00 ± 1.00"]
    assert "untrained: with the parameters that training starts from" in said
