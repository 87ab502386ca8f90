"""What the experiment on few-shot classification says of numbers that are known."""

import copy
import dataclasses
from types import SimpleNamespace
from unittest.mock import MagicMock

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import few_shot
from experiments.reports import few_shot as words
from experiments.reports._departures import of_few_shot
from jaxdl.errors import InputError
from jaxdl.recipes.choice import with_learner
from jaxdl.runs.config import flat

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


def test_first_order_maml_stands_beside_its_own_published_number():
    omniglot = few_shot.PRESETS["omniglot-5way-1shot"]
    by_name = flat(with_learner(omniglot, "fomaml"))
    by_estimator = flat(with_learner(omniglot, "maml", estimator="first-order"))
    assert words.published(flat(omniglot)) == "98.7 ± 0.4"
    assert words.published(by_name) == words.published(by_estimator) == "98.3"
    assert of_few_shot(by_name, {}) == of_few_shot(by_estimator, {})
    cifar = {"data": "cifar_fs"}
    assert (
        words.published({**by_name, **cifar}) is words.published({**by_estimator, **cifar}) is None
    )


def test_the_untrained_learner_has_a_row_and_a_line():
    result = made_up(1)
    assert "untrained" not in words.report(result)  # a run of before
    result["untrained"] = [{"accuracy": 0.2, "ci95": 0.01, "loss": 1.6}]
    said = words.report(result)
    assert cells(said)[2] == ["MAML, untrained", "20.00 ± 1.00"]
    assert "untrained: with the parameters that training starts from" in said


def test_the_class_means_by_cosine_have_a_row_of_their_own():
    result = made_up(1)
    result["nearest_centroid_cosine"] = [{"accuracy": 0.25, "ci95": 0.01, "loss": 1.0}]
    by_distance, by_cosine = cells(words.report(result))[-2:]
    assert by_distance[0] == "nearest centroid of pixels"
    assert by_cosine == ["nearest centroid of pixels, by cosine", "25.00 ± 1.00"]
    result["config"]["data"], result["config"]["path"] = "table", "a.csv"
    assert cells(words.report(result))[-1][0] == "nearest class mean, by cosine"


# ---- the schedule of the outer learning rate


def rates_at(monkeypatch, steps, **fields):
    """What Adam does to a constant gradient of 1 at these steps: it moves by the learning rate."""
    config = dataclasses.replace(few_shot.Config(lr=0.5, steps=8), **fields)
    monkeypatch.setattr(few_shot, "validation_by", lambda *_: None)
    monkeypatch.setattr(few_shot.meta_training, "meta_train", lambda *_, tx, **__: tx)
    tasks, run = MagicMock(), SimpleNamespace(best=lambda tx: tx)
    tx, moved = few_shot.meta_train(config, run, None, None, tasks, None), []
    state = tx.init(jnp.zeros(()))
    for _ in range(max(steps) + 1):
        update, state = tx.update(jnp.ones(()), state)
        moved.append(-float(update))
    return [moved[step] for step in steps]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.5, 0.5, 0.5, 0.5]),
        ({"schedule": "cosine"}, [0.5, 0.4268, 0.25, 0.0]),
        ({"schedule": "cosine", "decay_steps": 4}, [0.5, 0.25, 0.0, 0.0]),
    ],
)
def test_the_learning_rate_falls_along_half_a_cosine(fields, expected, monkeypatch):
    np.testing.assert_allclose(rates_at(monkeypatch, [0, 2, 4, 8], **fields), expected, atol=1e-4)


def test_a_schedule_that_follows_the_steps_refuses_others(tmp_path):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("config: {steps: 4}")
    config = few_shot.Config(schedule="cosine", steps=6)
    with pytest.raises(InputError, match=r"`steps=4`, and its schedule .*`decay_steps=`"):
        few_shot.experiment(None, config, SimpleNamespace(directory=tmp_path))


def test_a_length_of_no_schedule_is_refused():
    with pytest.raises(InputError, match="`decay_steps=` is for `schedule=cosine`: leave it out"):
        few_shot.check(few_shot.Config(decay_steps=5))


@pytest.mark.parametrize(("schedule", "told"), [("constant", False), ("cosine", True)])
def test_a_cosine_is_told_beside_the_paper_s_numbers(schedule, told):
    omniglot = few_shot.PRESETS["omniglot-5way-1shot"]
    config = flat(dataclasses.replace(omniglot, schedule=schedule))
    assert any("falls along a cosine" in line for line in of_few_shot(config, {})) == told
    prototypes = few_shot.PRESETS["omniglot-5way-1shot-protonet"]
    config = flat(dataclasses.replace(prototypes, schedule=schedule))
    assert any("falls along a cosine" in line for line in of_few_shot(config, {})) == told


def test_first_order_gradients_make_another_method_of_maml_alone():
    omniglot = few_shot.PRESETS["omniglot-5way-1shot"]
    for name in ("proto_maml", "anil", "boil", "meta_sgd"):
        config = flat(with_learner(omniglot, name, estimator="first-order"))
        assert words.published(config) is None
    result = made_up(1, paper="98.3")
    result["config"] |= flat(with_learner(omniglot, "maml", estimator="first-order"))
    shown = [row[0] for row in cells(words.report(result | {"fine_tuning_rate": None}))]
    assert shown[1] == "first-order MAML"
    assert shown[-1] == "first-order MAML, published, ± over episodes"


def test_each_setting_that_is_not_the_recipe_s_is_told():
    omniglot = few_shot.PRESETS["omniglot-5way-1shot"]
    whole = of_few_shot(flat(omniglot), few_shot.PRESETS)
    assert not any("in the recipe" in line or "60,000" in line for line in whole)
    changed = dataclasses.replace(
        with_learner(omniglot, "maml", inner_steps=3), rotations="none", norm="support", tasks=8
    )
    assert of_few_shot(flat(changed), few_shot.PRESETS)[-4:] == [
        "rotations: none here, augment in the recipe.",
        "norm: support here, batch in the recipe.",
        "tasks: 8 here, 32 in the recipe.",
        "inner steps: 3 here, 1 in the recipe.",
    ]


def test_an_interval_that_is_not_finite_leaves_a_report():
    """result.json holds it as a text."""
    result = made_up(1)
    result["maml"] = [{"accuracy": "nan", "ci95": "nan", "loss": "nan"}]
    assert cells(words.report(result))[1] == ["MAML", "nan ± nan"]
