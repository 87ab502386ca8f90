"""The navigation experiment on tiny sizes: it trains, resumes, reprints, draws, and refuses."""

import json

import jax
import numpy as np
import pytest

from experiments import navigation
from experiments.reports.navigation import METHODS, summary
from jaxdl.errors import InputError
from jaxdl.rl import point
from jaxdl.runs.config import unflat
from jaxdl.runs.run import RunFlags, open_run
from tests.programs import traced_once

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(point, "LIMIT", 5)
    monkeypatch.setattr(navigation, "VALIDATION_TASKS", 2)


def config_of(folder, **changes):
    flags = {"runs_dir": folder, "name": "run", "log_every": 2, "devices": 1}
    small = {"steps": 4, "tasks": 2, "trajectories": 3, "hidden": 4, "seeds": 2, "eval_every": 2}
    small |= {"thin": 2, "test_tasks": 2, "test_trajectories": 2, "method": ("maml", "random")}
    return unflat(navigation.Config, small | changes | {"run": RunFlags(**flags)})


def lines(folder):
    return (folder / "navigation" / "run" / "maml" / "metrics.jsonl").read_text()


@traced_once()
def test_it_trains_resumes_bit_for_bit_draws_and_reprints(tmp_path, capsys):
    config = config_of(tmp_path / "whole")
    result = navigation.main(config)
    printed = capsys.readouterr().out
    methods = result["methods"]
    assert {name: len(found) for name, found in methods.items()} == {"maml": 4, "random": 4}
    means = [found["mean"] for found in methods["maml"]]
    assert len(set(means)) == 4
    assert all(-5 < mean < 0 for mean in means)
    assert means != [found["mean"] for found in methods["random"]]
    for words in (f"{means[3]:.2f}", "-11.68", "minus the distance"):
        assert words in printed
    for words in (
        "± 95 % over seeds (over goals)",
        "± over seeds by Student's t, in brackets over",
    ):
        assert words in printed
    for words in ("fitted to the same trajectories", "counts tasks equally"):
        assert words in printed
    for name in ("paths", "returns", "learning_curve"):
        assert (tmp_path / f"whole/navigation/run/{name}.png").stat().st_size > 10_000
    assert set(result["chosen_steps"]["maml"]) <= {2, 4}
    assert navigation.main(config) == result
    assert capsys.readouterr().out == printed

    for steps in (2, 4):
        short = config_of(tmp_path / "parts", steps=steps)
        with open_run("navigation", short) as run:
            navigation.train(short, run.part("maml"), point.environment, 1)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    # The parameters have moved, or every run would equal every other.
    told = map(json.loads, lines(tmp_path / "whole").splitlines())
    assert max(max(line.get("taken", [0])) for line in told) > 0


@pytest.mark.slow
def test_all_methods_stand_side_by_side_and_a_seed_learns_what_it_learns_alone(tmp_path, capsys):
    changes = {"method": tuple(METHODS), "seeds": 1}
    result = navigation.main(config_of(tmp_path, **changes))
    assert [len(result["methods"][name]) for name in METHODS] == [4, 4, 4, 1]
    assert set(result["inner_rates"]) == {"maml", "pretrained", "random"}
    printed = capsys.readouterr().out
    assert all(title in printed for title in METHODS.values())
    both = navigation.main(config_of(tmp_path / "both"))
    alone, first = (found["methods"]["maml"][3]["values"][0] for found in (result, both))
    np.testing.assert_allclose(alone, first, rtol=1e-4)


def test_the_interval_over_tasks_is_that_of_their_means_over_seeds():
    found = np.array([[[1.0, 0], [3, 0]], [[5, 0], [3, 0]]])  # seeds, tasks, depths
    first, second = summary(found)
    assert first["values"] == [2, 4]
    assert first["mean"] == 3
    assert first["ci95_tasks"] == 0  # both tasks have 3, on average over seeds
    assert second["mean"] == second["ci95_tasks"] == 0


def test_a_rate_is_chosen_by_the_last_return_and_nan_loses(monkeypatch):
    scores = {0.03: -9.0, 0.1: -3.0, 0.3: -5.0, 1.0: np.nan}

    def evaluation(config, environment, steps, tasks):
        return lambda key, params, rate: np.array([[[100 * rate, 0, 0, scores[rate]]] * tasks] * 2)

    monkeypatch.setattr(navigation, "evaluation", evaluation)
    params = {"w": jax.numpy.zeros((2, 3))}
    assert navigation.best_rate(navigation.Config(), params) == 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "`steps=0`: choose at least 1"),
        ({"inner_steps": 0}, "`inner_steps=0`"),
        ({"trajectories": 1}, "`trajectories=1`: choose at least 2"),
        ({"thin": 0}, "`thin=0`"),
        ({"eval_every": 3}, "`eval_every=3` must be a multiple of `log_every=2`"),
        ({"method": ()}, "`method=`: give at least one name"),
        ({"method": ("maml", "maml")}, "`method=maml maml`: .* each name once"),
        ({"max_kl": 0.0}, "`max_kl=0.0`: choose a number above 0"),
        ({"inner_lr": float("nan")}, "`inner_lr=nan`"),
        ({"discount": 1.5}, "`discount=1.5`: choose at most 1"),
        ({"test_tasks": 1}, "`test_tasks=1`"),
        ({"seed": 1_000_001}, "`seed=1000001`: choose at most"),
    ],
)
def test_mistakes_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        navigation.main(config_of(tmp_path, **changes))
