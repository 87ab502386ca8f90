"""The navigation experiment on tiny sizes: it trains, resumes, reprints, draws, and refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import _navigation, navigation
from jaxdl.errors import InputError
from jaxdl.rl import point
from jaxdl.runs import RunFlags

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(autouse=True)
def _short_episodes(monkeypatch):
    monkeypatch.setattr(point, "LIMIT", 5)


def config_of(folder, **changes):
    flags = {"runs_dir": folder, "name": "run", "log_every": 2, "devices": 1}
    small = {"steps": 4, "tasks": 2, "trajectories": 3, "hidden": 4, "seeds": 2}
    small |= {"test_tasks": 2, "test_trajectories": 2}
    return dataclasses.replace(navigation.Config(**small | changes), run=RunFlags(**flags))


def test_it_trains_resumes_bit_for_bit_draws_and_reprints(tmp_path, capsys):
    config = config_of(tmp_path / "whole")
    result = navigation.main(config)
    printed = capsys.readouterr().out
    methods = result["methods"]
    assert [len(methods[name]) for name in _navigation.METHODS] == [4, 4, 4, 1]
    means = [found["mean"] for found in methods["maml"]]
    assert len(set(means)) == 4
    assert all(-5 < mean < 0 for mean in means)
    assert f"{means[3]:.2f}" in printed
    assert "-11.68" in printed
    assert "distance" in printed
    directory = tmp_path / "whole" / "navigation" / "run"
    for name in ("paths", "returns", "learning_curve"):
        assert (directory / f"{name}.png").stat().st_size > 10_000
    assert navigation.main(config) == result
    assert capsys.readouterr().out == printed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(navigation.Run, "picture", lambda *_, **__: None)
        navigation.main(config_of(tmp_path / "parts", steps=2))
        longer = navigation.main(config_of(tmp_path / "parts"))
    assert longer["methods"] == methods
    lines = [
        (tmp_path / name / "navigation/run/metrics.jsonl").read_text()
        for name in ("whole", "parts")
    ]
    assert lines[0] == lines[1]


def test_the_interval_over_tasks_is_that_of_their_means_over_seeds():
    found = np.array([[[1.0, 0], [3, 0]], [[5, 0], [3, 0]]])  # seeds, tasks, depths
    first, second = navigation.summary(found)
    assert first["values"] == [2, 4]
    assert first["mean"] == 3
    assert first["ci95_tasks"] == 0  # both tasks have 3, on average over seeds
    assert second["mean"] == second["ci95_tasks"] == 0


def test_a_rate_is_chosen_by_the_last_return_and_nan_loses(monkeypatch):
    scores = {0.03: -9.0, 0.1: -3.0, 0.3: -5.0, 1.0: np.nan}

    def evaluation(config, environment, steps, tasks):
        return lambda key, params, rate: np.array([[100 * rate, 0, 0, scores[rate]]] * tasks)

    monkeypatch.setattr(navigation, "evaluation", evaluation)
    params = {"w": jax.numpy.zeros((2, 3))}
    assert navigation.best_rate(navigation.Config(), params) == 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "--steps 0: choose at least 1"),
        ({"inner_steps": 0}, "--inner-steps 0"),
        ({"trajectories": 1}, "--trajectories 1: choose at least 2"),
        ({"thin": 0}, "--thin 0"),
        ({"max_kl": 0.0}, "--max-kl 0.0: choose a number above 0"),
        ({"inner_lr": float("nan")}, "--inner-lr nan"),
        ({"discount": 1.5}, "--discount 1.5: choose at most 1"),
        ({"test_tasks": 1}, "--test-tasks 1"),
        ({"seed": 1_000_001}, "--seed 1000001: choose at most"),
    ],
)
def test_mistakes_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        navigation.main(config_of(tmp_path, **changes))
