"""The experiment on replay, tiny, and what it says of numbers that are known."""

import contextlib
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import dqn as experiment
from experiments.reports import dqn as words
from jaxdl.errors import InputError
from jaxdl.recipes.agents import random_play
from jaxdl.report.intervals import seeds_summary
from jaxdl.rl.cartpole import cart_pole
from jaxdl.runs.config import RunFlags, unflat
from jaxdl.runs.run import Run
from tests.programs import traced_once

pytestmark = pytest.mark.usefixtures("compiled_once", "one_program")


OPTIONS = {"prioritized": True, "returns": 2, "double": True, "dueling": True, "hidden": (4, 4)}


def config_of(folder, name="tiny", **changes):
    """A configuration whose nets and runs are small, with some changes."""
    small = {
        "capacity": 200,
        "short": 30,
        "steps": 6,
        "envs": 2,
        "plays": 3,
        "batch": 6,
        "prefill": 40,
        "hidden": (4,),
        "explore_steps": 3,
        "decay_steps": 6,
        "eval_every": 2,
        "episodes": 3,
        "seeds": 2,
        "run": RunFlags(name=name, runs_dir=folder, log_every=1),
    }
    return unflat(experiment.Config, small | changes)


@pytest.fixture
def tiny(tmp_path):
    return functools.partial(config_of, tmp_path)


@pytest.fixture(scope="module")
def one_program():
    with traced_once():
        yield


@pytest.fixture(scope="module")
def whole(one_program, tmp_path_factory):
    """A run with two memories that never stopped, its result and its folder."""
    folder = tmp_path_factory.mktemp("runs")
    config = config_of(folder, "whole", memories=("short", "none"), **OPTIONS)
    return config, experiment.main(config), folder / "dqn" / "whole"


def test_memories_end_in_a_table_and_two_pictures(whole, capsys):
    config, result, directory = whole
    assert {path.stem for path in directory.glob("*.png")} == {"return", "td_error"}
    assert list(result["memories"]) == ["short", "none"]
    # One start for both memories, and then a way of its own for each.
    short, none = (
        [json.loads(line) for line in (directory / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("short", "none")
    )
    assert short[0]["return"] == none[0]["return"]
    assert short[-1]["td_variance"] != none[-1]["td_variance"]
    assert experiment.main(config) == json.loads((directory / "result.json").read_text()) == result
    said = capsys.readouterr().out
    assert "| short (30)" in said
    assert "| none " in said
    assert "± over seeds by Student's t" in said


def test_resumed_equals_never_stopped_bit_for_bit(whole, tmp_path, monkeypatch):
    """Memories, environments, windows of two steps and priorities included."""
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    _, result, directory = whole
    for steps in (4, 6):
        config = config_of(tmp_path, "stopped", steps=steps, memories=("short",), **OPTIONS)
        resumed = experiment.main(config)
    assert resumed["memories"]["short"] == result["memories"]["short"]
    journal = "short/metrics.jsonl"
    assert (tmp_path / "dqn/stopped" / journal).read_text() == (directory / journal).read_text()


def test_memories_have_the_sizes_of_their_names(tiny):
    config = tiny()
    env = experiment.environment(config.env)
    for name, size in zip(experiment.MEMORIES, (200, 30, 6), strict=True):
        state = jax.eval_shape(experiment.agent_of(config, env, name).init, jax.random.key(0))
        assert state.memory.items.reward.shape == (size,)


@pytest.mark.parametrize(("decay_steps", "end"), [(6, 6), (0, 9)])
def test_schedules_reach_their_ends(tiny, monkeypatch, decay_steps, end):
    monkeypatch.setattr(experiment, "dqn", lambda *_, **given: given)
    config = tiny(steps=9, decay_steps=decay_steps, prioritized=True)
    given = experiment.agent_of(config, experiment.environment(config.env), "replay")
    exponent = [float(given["is_exponent"](step)) for step in range(12)]
    np.testing.assert_allclose(
        exponent, np.interp(range(12), [0, end], [config.beta, 1]), rtol=1e-6
    )
    epsilon = [float(given["epsilon"](step)) for step in range(12)]
    line = np.interp(range(12), [0, config.explore_steps], [1, config.explore])
    np.testing.assert_allclose(epsilon, line, rtol=1e-6)


def test_without_a_memory_a_step_learns_from_all_that_was_just_played(tiny, monkeypatch):
    monkeypatch.setattr(experiment, "dqn", lambda *given, **_: given[3])
    config = tiny(prioritized=True)
    memory = experiment.agent_of(config, experiment.environment(config.env), "none")
    state = memory.add(None, memory.init(jnp.int32(0)), jnp.arange(9))  # the newest 6 stay
    sample = memory.sample(jax.random.key(0), state, 6, is_exponent=0.4)
    assert sorted(sample.items.tolist()) == [3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(sample.weights, np.ones(6))
    np.testing.assert_array_equal(state.items[sample.indices], sample.items)


@pytest.mark.parametrize("chosen", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_whose_beta_rises_over_its_steps_is_not_made_longer(tmp_path, monkeypatch, chosen):
    """And one without priorities is, because there the steps decide no schedule."""
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    options = {"decay_steps": 0, "prioritized": chosen, "memories": ("short",)}
    first = experiment.main(config_of(tmp_path, steps=2, **options))
    assert experiment.main(config_of(tmp_path, steps=2, **options)) == first
    says = "made with `steps=2`, and its schedule depends on them, so 4 .* set `decay_steps=`"
    with pytest.raises(InputError, match=says) if chosen else contextlib.nullcontext():
        longer = experiment.main(config_of(tmp_path, steps=4, **options))
        assert longer["run"]["steps"] == 4


def test_schedules_that_the_last_step_came_before_are_told():
    config = {"decay_steps": 9000, "explore_steps": 8000, "prioritized": True}
    assert words.unfinished(config, 9000) == []
    assert words.unfinished(config, 7000) == [
        "stopped before the learning rate had fallen and --beta had risen (--decay-steps 9,000)",
        "stopped before exploration had fallen (--explore-steps 8,000)",
    ]
    assert words.unfinished({**config, "decay_steps": 0}, 8000) == []


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


def test_a_row_per_memory_counts_the_seeds_that_solve_the_task():
    result = made_up(replay=[475.0, 500, 474], short=[100, 200, 300], none=[9, 9, 9])
    names = ("double", "dueling", "prioritized", "batch", "envs", "plays", "seed", "episodes")
    result["config"] |= dict.fromkeys((*names, "decay_steps", "explore_steps"), 0)
    result["run"] = {"wall_seconds": 1, "compile_seconds": 1, "device": "1 x cpu"}
    result["run"] |= {"machine": "a box", "directory": "runs/a"}
    header, _, *rows = words.report(result).splitlines()[:5]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["replay (5,000)", "short (50)", "none"]
    assert [row[3] for row in cells] == ["2 of 3", "0 of 3", "0 of 3"]
    assert cells[0][2] == "475 500 474"
    assert [row[5][:5] for row in cells] == ["10.00", "20.00", "30.00"]  # held out
    result["config"]["env"] = "gymnax:Acrobot-v1"  # nobody says from where on it is solved
    assert "solved" in header
    assert "solved" not in words.report(result)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seed": 20_241_125}, "`seed=20241125`: choose at most"),
        ({"env": "atari"}, "`env=atari`: choose cartpole, or gymnax:NAME"),
        ({"memories": ("long",)}, "`memories=long`: choose among replay short none"),
        ({"memories": ("none", "none")}, "`memories=none none`: .* each name once"),
        ({"batch": 7}, "`batch=7`: .* from the 6 transitions .* Give `batch=6`"),
        ({"hidden": ()}, "`hidden=`: give the width"),
        ({"hidden": (4, 0)}, "`hidden=0`: choose at least 1"),
        ({"capacity": 0}, "`capacity=0`: choose at least 1"),
        ({"gamma": 1.5}, "`gamma=1.5`: choose at most 1"),
        ({"target_rate": 0.0}, "`target_rate=0.0`: choose a number above 0"),
        ({"lr": 0.0}, "`lr=0.0`: choose a number above 0"),
        (
            {"eval_every": 3, "run": RunFlags(log_every=2)},
            "`eval_every=3` must be a multiple of `log_every=2`",
        ),
        ({"run": RunFlags(devices=2, log_every=1)}, "`devices=2`: choose at most 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, wrong, says):
    with pytest.raises(InputError, match=says):
        experiment.main(tiny(**wrong))


def test_without_none_a_batch_of_any_size_will_do(tiny):
    experiment.check(tiny(batch=5, memories=("replay", "short")))


def test_gymnax_is_asked_for_by_name_where_it_is_missing(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(InputError, match="gymnax is not installed"):
        experiment.main(tiny(env="gymnax:Acrobot-v1"))


def test_held_out_transitions_are_of_random_play():
    made = random_play(cart_pole(), key=jax.random.key(20_241_125), count=2000, gamma=0.995)
    assert made.obs.shape == (2000, 4)
    assert 0.4 < made.action.mean() < 0.6
    ended = np.asarray(made.discount == 0)
    assert 0.02 < ended.mean() < 0.1  # episodes of random play last some 20 steps
    assert np.unique(made.discount).tolist() == pytest.approx([0, 0.995])
