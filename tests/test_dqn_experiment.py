"""The experiment on replay, tiny, and what it says of numbers that are known."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments import _dqn as words
from experiments import dqn as experiment
from jaxdl.errors import InputError
from jaxdl.metrics import seeds_summary
from jaxdl.runs import Run, RunFlags

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def tiny(tmp_path):
    """A configuration whose nets and runs are small, with some changes."""

    def config(**changes):
        small = experiment.Config(
            capacity=200,
            short=30,
            steps=6,
            envs=2,
            plays=3,
            batch=6,
            prefill=40,
            hidden=(4,),
            explore_steps=3,
            decay_steps=6,
            eval_every=2,
            episodes=3,
            seeds=2,
        )
        run = RunFlags(name=changes.pop("name", "tiny"), runs_dir=tmp_path, log_every=1)
        return dataclasses.replace(small, **{"run": run, **changes})

    return config


def test_three_memories_end_in_a_table_and_two_pictures(tiny, tmp_path, capsys):
    result = experiment.main(tiny())
    directory = tmp_path / "dqn" / "tiny"
    assert {path.stem for path in directory.glob("*.png")} == {"return", "td_error"}
    assert list(result["memories"]) == ["replay", "short", "none"]
    said = capsys.readouterr().out
    assert "| replay (200)" in said
    assert result["finding"] in said
    # One start for all memories, and then a way of its own for each.
    lines = [
        [json.loads(line) for line in (directory / name / "metrics.jsonl").read_text().splitlines()]
        for name in experiment.MEMORIES
    ]
    first, *_, last = ([of[at] for of in lines] for at in range(len(lines[0])))
    assert first[0]["return"] == first[1]["return"] == first[2]["return"]
    assert len({each["td_variance"][0] for each in last}) == 3
    assert experiment.main(tiny()) == json.loads((directory / "result.json").read_text())


def test_resumed_equals_never_stopped_bit_for_bit(tiny, tmp_path, monkeypatch):
    """Memories, environments, windows of two steps and priorities included."""
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    options = {"prioritized": True, "returns": 2, "double": True, "dueling": True}
    options |= {"memories": ("short",), "hidden": (4, 4)}
    whole = experiment.main(tiny(name="whole", **options))
    experiment.main(tiny(name="stopped", steps=4, **options))
    resumed = experiment.main(tiny(name="stopped", **options))
    assert resumed["memories"] == whole["memories"]
    one, two = (tmp_path / "dqn" / name / "short/metrics.jsonl" for name in ("whole", "stopped"))
    assert one.read_text() == two.read_text()


def made_up(env="cartpole", **returns):
    memories = {
        name: {
            "return": seeds_summary(values),
            **dict.fromkeys(("batch_variance", "held_out_mean", "swing"), seeds_summary([1.0])),
            "held_out_variance": seeds_summary([10.0 * i]),
        }
        for i, (name, values) in enumerate(returns.items(), start=1)
    }
    config = {"env": env, "seeds": 3, "capacity": 5000, "short": 50}
    return {"memories": memories, "steps": 9000, "config": config}


def test_the_finding_is_read_off_the_numbers():
    said = words.finding(made_up(replay=[475.0, 500, 474], short=[100, 200, 300], none=[9, 9, 9]))
    assert (
        "at step 9,000: replay (5,000) 483, 2 of 3 seeds at 475 or above; short (50) 200, 0" in said
    )
    assert "play: replay (5,000) 1 and 10; short (50) 1 and 20; none 1 and 30." in said
    assert "none -80. Variance" in words.finding(made_up("gymnax:Acrobot-v1", none=[-80.0] * 3))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"env": "atari"}, "--env atari: choose cartpole, or gymnax:NAME"),
        ({"memories": ("long",)}, "--memories long: choose of replay short none"),
        ({"memories": ("none", "none")}, "--memories none none: choose of"),
        ({"batch": 7}, "--batch 7: .* = 6 transitions just made"),
        ({"hidden": ()}, "--hidden: give at least one width"),
        ({"capacity": 0}, "--capacity 0: choose at least 1"),
        ({"gamma": 1.5}, "--gamma 1.5: choose at most 1"),
        ({"target_rate": 0.0}, "--target-rate 0.0: choose a number above 0"),
        ({"lr": 0.0}, "--lr 0.0: choose a number above 0"),
        (
            {"eval_every": 3, "run": RunFlags(log_every=2)},
            "--eval-every 3 must be a multiple of --log-every 2",
        ),
        ({"run": RunFlags(devices=2, log_every=1)}, "--devices 2: this experiment runs on one"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, wrong, says):
    with pytest.raises(InputError, match=says):
        experiment.main(tiny(**wrong))


def test_without_none_a_batch_of_any_size_will_do(tiny):
    assert experiment.check(tiny(batch=5, memories=("replay", "short"))).actions == 2


def test_gymnax_is_asked_for_by_name_where_it_is_missing(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(InputError, match=r"needs gymnax, which is not"):
        experiment.main(tiny(env="gymnax:Acrobot-v1"))


def test_held_out_transitions_are_of_random_play():
    made = experiment.random_play(experiment.Config(), experiment.environment("cartpole"))
    assert made.obs.shape == (2000, 4)
    assert 0.4 < made.action.mean() < 0.6
    ended = np.asarray(made.discount == 0)
    assert 0.02 < ended.mean() < 0.1  # episodes of random play last some 20 steps
    assert np.unique(made.discount).tolist() == pytest.approx([0, 0.99])
