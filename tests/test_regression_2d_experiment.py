"""The experiment on pictures: what it says of known numbers, and tiny runs on a tiny MNIST."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import regression_2d
from experiments.reports.regression_2d import given_pixels
from jaxdl.data.sets.completion import completion
from jaxdl.data.sets.images import image_arrays
from jaxdl.errors import InputError
from jaxdl.recipes.choice import own_keywords, with_learner
from jaxdl.recipes.learners import COMPLETERS
from jaxdl.runs.config import unflat
from jaxdl.runs.run import RunFlags, open_run
from jaxdl.types import Batch

pytestmark = pytest.mark.usefixtures("compiled_once")
SPLITS = ("train", "test")
MEANS = np.array([0.71, 0.76, 0.75])


def made_up(seeds):
    """A result of known numbers, as result.json holds it."""

    def scores(shift):
        names = ("log_likelihood", "squared_error", "context")
        return {name: {"mean": shift + i, "ci95": 0.02} for i, name in enumerate(names)}

    run = {"steps": 8000, "wall_seconds": 96.4, "compile_seconds": 2.2, "device": "1 x cpu"}
    of_learner = [scores(mean) for mean in MEANS[:seeds]]
    return {
        "scores": {
            "cnp": {"1": of_learner, "100": of_learner},
            "mean_picture": {"1": scores(0.5), "100": scores(0.6)},
            "nearest_pixel": {"1": scores(-0.4), "100": scores(0.1)},
        },
        "parameters": 216_066,
        "least_scale": 0.1,
        "images": {"train": 60_000, "test": 10_000},
        "config": {
            "learner": "cnp",
            "context": [1, 100],
            "points": 199,
            "tasks": 16,
            "seed": 0,
            "test_tasks": 1000,
        },
        "run": {**run, "machine": "a box", "directory": "runs/a"},
    }


def test_the_table_has_the_learner_and_both_baselines():
    low, high = stats.t.interval(0.95, 2, MEANS.mean(), stats.sem(MEANS))
    said = regression_2d.report(made_up(3))
    lines = [line.strip("|").split("|") for line in said.splitlines() if line[0] == "|"]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in lines}
    assert rows["per pixel, ± 95 % over seeds"] == ["1 pixel given", "100 pixels given"]
    assert rows["cnp, log-likelihood"] == [f"{MEANS.mean():.3f} ± {(high - low) / 2:.3f}"] * 2
    assert rows["mean picture, log-likelihood"] == ["0.500 ± 0.020", "0.600 ± 0.020"]
    assert rows["nearest given pixel, squared error"] == ["0.6000 ± 0.0200", "1.1000 ± 0.0200"]
    assert rows["cnp, log-likelihood of given pixels"][0].startswith("2.740")
    assert "trained for 8,000 steps of 16 of 60,000 pictures, with 3 to 196 pixels given" in said
    assert f"no log-likelihood is above {stats.norm(0, 0.1).logpdf(0):.3f}" in said
    assert "per pixel, ± 95 % over pictures" in regression_2d.report(made_up(1))


def config_of(data, folder, learner="cnp", own=(), **changes):
    flags = {"runs_dir": folder, "name": "run", "log_every": 2, "devices": 1}
    small = {"steps": 4, "tasks": 2, "test_tasks": 4, "decay_steps": 4, "seeds": 2, "points": 9}
    values = {"data_dir": data, "context": (5,), **small, **changes}
    config = unflat(regression_2d.Config, values | {"run": RunFlags(**flags)})
    return with_learner(config, learner, COMPLETERS, **dict(own))


SMALL = {
    "cnp": {"width": 4, "least_scale": 0.3},
    "canp": {"width": 4, "heads": 2},
    "lnp": {"width": 4, "samples": 3},
    "anp": {"width": 4, "heads": 2, "samples": 3},
    "tnp_d": {"width": 4, "heads": 2, "layers": 1},
}


def test_a_run_ends_in_table_and_pictures_and_is_reprinted(tiny_mnist, tmp_path, capsys):
    """The numbers of the mean picture are those of SciPy, on test pixels that are not given."""
    config = config_of(tiny_mnist, tmp_path, own=SMALL["cnp"], seeds=1, steps=2)
    result = regression_2d.main(config)
    printed = capsys.readouterr().out
    assert "| cnp, log-likelihood " in printed
    assert result["images"] == {"train": 40, "test": 12}
    assert result["least_scale"] == 0.3
    folder = tmp_path / "regression_2d" / "run"
    for name in ("pictures", "learning_curve"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert regression_2d.main(config) == result
    assert capsys.readouterr().out == printed

    images = {split: image_arrays("mnist", split, data_dir=tiny_mnist).images for split in SPLITS}
    values = images["train"].reshape(40, 784) / 255 - 0.5
    mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 0.3)
    draw, numbers = jax.jit(completion(images["test"], shots=5, queries=None)), []
    for e in range(4):
        key = jax.random.fold_in(jax.random.key(regression_2d.TEST_KEY), e)
        query = draw(jax.random.split(key)[0]).query
        unknown, y = np.asarray(query.weight) > 0, np.asarray(query.y)[:, 0]
        likely, error = stats.norm.logpdf(y, mean, scale), np.square(y - mean)
        numbers.append({"log_likelihood": likely[unknown].mean(), "squared_error": error[unknown]})
    found = result["scores"]["mean_picture"]["5"]
    for name in ("log_likelihood", "squared_error"):
        means = [np.mean(each[name]) for each in numbers]
        np.testing.assert_allclose(found[name]["mean"], np.mean(means), rtol=1e-5)
        half = 1.96 * stats.sem(means)
        np.testing.assert_allclose(found[name]["ci95"], half, rtol=1e-3)


def test_all_learners_have_one_least_scale_so_that_they_compare():
    assert {own_keywords(make)().least_scale for make in COMPLETERS.values()} == {0.1}


@pytest.mark.slow
@pytest.mark.parametrize("learner", [name for name in SMALL if name != "cnp"])
def test_each_learner_ends_in_numbers(learner, tiny_mnist, tmp_path):
    config = config_of(tiny_mnist, tmp_path, learner, SMALL[learner], steps=2)
    one, other = regression_2d.main(config)["scores"][learner]["5"]
    assert one != other
    assert all(np.isfinite(value["mean"]) for value in one.values())
    assert ("joint_log_likelihood" in one) == (learner in ("lnp", "anp"))


@pytest.mark.slow
def test_a_run_that_is_resumed_is_that_which_never_stopped(tiny_mnist, tmp_path):
    images = image_arrays("mnist", "train", data_dir=tiny_mnist).images
    sample = completion(images, shots=(3, 6), queries=(3, 6), points=9)

    def losses(folder, *stops):
        for steps in stops:
            config = config_of(tiny_mnist, tmp_path / folder, own=SMALL["cnp"], steps=steps)
            with open_run("regression_2d", config) as run:
                learner = regression_2d.learner_of_curves(regression_2d.flat(config))
                regression_2d.train(config, run, learner, sample)
        text = (tmp_path / folder / "regression_2d/run/metrics.jsonl").read_text()
        return [line["loss"] for line in map(json.loads, text.splitlines()) if "loss" in line]

    whole = losses("whole", 4)
    assert len(whole) == 2
    assert losses("parts", 2, 4) == whole


def test_what_is_not_given_is_blue():
    query = Batch(np.zeros((1, 3, 2)), np.array([[[-0.5], [0.5], [0.1]]]), np.array([[0, 0, 1]]))
    np.testing.assert_allclose(given_pixels(query), [[[1, 1, 1], [0, 0, 0], [0.6, 0.8, 1]]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context": ()}, "give at least one number, and each number once"),
        ({"context": (10, 10)}, "`context=10 10`: give at least one number"),
        ({"context": (784,)}, "`context=784`: choose at most 783"),
        ({"points": 5}, "`points=5`: choose at least 6"),
        ({"own": {"least_scale": 0.0}}, "`least_scale=0.0`: most pixels are exactly black"),
        ({"seed": 1_000_001}, "`seed=1000001`: choose at most"),
        ({"learner": "convcnp"}, "`learner=convcnp` takes one number from -2.5 to 2.5 as input"),
        ({"learner": "maml"}, "`learner=maml`: choose among cnp canp lnp anp tnp_d, or give"),
        ({"learner": "protonet"}, "`learner=protonet` predicts classes: choose among cnp canp"),
    ],
)
def test_mistakes_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        regression_2d.main(config_of(None, tmp_path, **changes))
