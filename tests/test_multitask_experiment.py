"""The experiment on many tasks, on a tiny published MNIST and with a dense trunk."""

import dataclasses
import json
import runpy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import many_questions, multitask
from experiments.reports import many_questions as of_questions
from experiments.reports import multitask as words
from jaxdl.errors import InputError
from jaxdl.grads import supervised
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import mlp
from jaxdl.multitask.gradients import TaskGrads, multitask_step
from jaxdl.multitask.sharing import hard_sharing
from jaxdl.recipes import many_tasks
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.config import RunFlags, unflat
from jaxdl.runs.identity import digest
from jaxdl.runs.run import Run
from jaxdl.runs.weights import save_weights
from jaxdl.train.steps import init_state
from jaxdl.train.streams import run_keys
from jaxdl.types import Batch

pytestmark = pytest.mark.usefixtures("compiled_once")


SMALL = {
    "steps": 6,
    "batch": 8,
    "decay_steps": 6,
    "validation": 10,
    "eval_every": 2,
    "probes": 2,
    "seeds": 2,
}


def config_of(data, runs, *, name="tiny", experiment=multitask, **changes):
    """A configuration of two methods and a few steps, with some changes."""
    flags = RunFlags(name=name, runs_dir=runs, devices=1, log_every=1)
    fields = {"data_dir": data, "run": flags, "methods": ("equal", "pcgrad"), **SMALL, **changes}
    return unflat(experiment.Config, fields)


@pytest.fixture
def tiny(tiny_mnist, tmp_path, monkeypatch):
    """A configuration whose net is small, with some changes."""
    for experiment in (multitask, many_questions):
        monkeypatch.setattr(experiment, "trunk", lambda: mlp((4,)))
    return partial(config_of, tiny_mnist, tmp_path)


@pytest.fixture(scope="module")
def whole(tiny_mnist, tmp_path_factory):
    """A run that never stopped: its configuration, and its result."""
    config = config_of(tiny_mnist, tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multitask, "trunk", lambda: mlp((4,)))
        return config, multitask.main(config)


def directory_of(config):
    return config.run.runs_dir / "multitask" / config.run.name


def without_time(methods):
    return {name: {**found, "ms_per_step": 0} for name, found in methods.items()}


def lines(directory):
    """All that is journaled but the time."""
    text = (directory / "metrics.jsonl").read_text()
    return [line for line in text.splitlines() if '"time"' not in line]


@pytest.mark.slow
def test_overlaid_digits_end_in_a_table_and_two_pictures(whole, capsys):
    config, result = whole
    directory = directory_of(config)
    assert {path.stem for path in directory.glob("*.png")} == {"accuracy", "samples"}
    assert list(result["methods"]) == ["single", "equal", "pcgrad"]
    equal, single = result["methods"]["equal"], result["methods"]["single"]
    means = np.mean([task["values"] for task in equal["accuracy"]], axis=0)
    np.testing.assert_allclose(equal["mean"]["values"], means)
    assert equal["ms_per_step"] > 0
    assert 0 <= equal["conflicts"]["mean"] <= 1
    # One start and the same data for all methods, and then a way of its own for each.
    losses = [
        [line["loss"] for line in map(json.loads, lines(directory / name)) if "loss" in line]
        for name in ("equal", "pcgrad")
    ]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    assert not np.allclose(losses[0][-1], losses[1][-1], rtol=1e-5)
    trunk, head = 36 * 36 * 4 + 4, 4 * 50 + 50 + 50 * 10 + 10
    assert (single["parameters"], equal["parameters"]) == (2 * trunk + 2 * head, trunk + 2 * head)
    capsys.readouterr()
    assert multitask.main(config) == json.loads((directory / "result.json").read_text())
    said = capsys.readouterr().out
    assert "| two single nets" in said
    assert "| pcgrad" in said
    assert "minus single" in said
    assert "± over seeds by Student's t" in said


def test_ten_questions_end_in_two_tables_and_a_picture(tiny, tmp_path, capsys, monkeypatch):
    config = tiny(experiment=many_questions, methods=())
    result = many_questions.main(config)
    directory = tmp_path / "many_questions" / "tiny"
    assert (directory / "f1.png").exists()
    assert list(result["methods"]) == ["single", "equal"]
    assert len(result["methods"]["equal"]["f1"]) == len(result["base_rates"]) == 10
    said = capsys.readouterr().out
    assert "| ten single nets" in said
    assert "| is it this digit? in %" in said
    assert "| one net, equal, minus ten single nets" in said
    assert "± over seeds by Student's t" in said

    # Runs of the time when this was `multitask --case binary` are found where they lie.
    monkeypatch.setattr(Run, "restore", None)  # nothing is trained
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=""))
    name = f"binary-{digest(config)}"
    (tmp_path / "multitask").mkdir()
    directory.rename(tmp_path / "multitask" / name)
    assert many_questions.main(config) == result


@pytest.mark.slow
def test_resumed_equals_never_stopped_bit_for_bit(whole, tiny, monkeypatch):
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    config, expected = whole
    multitask.main(tiny(steps=4))
    resumed = multitask.main(tiny())
    assert without_time(resumed["methods"]) == without_time(expected["methods"])
    for part in ("single", "equal", "pcgrad"):
        one, two = (directory_of(each) / part for each in (config, tiny()))
        assert lines(one) == lines(two)


def test_only_the_shared_net_starts_from_given_weights(tiny, tmp_path, monkeypatch):
    starts = {}

    def learn(part, problem, net, *_):
        starts[part.directory.name] = net.start
        if len(starts) == 3:
            raise InterruptedError
        return {}, None

    def run(**changes):
        starts.clear()
        with pytest.raises(InterruptedError):
            multitask.main(tiny(**changes))
        return dict(starts)

    monkeypatch.setattr(many_tasks, "learn", learn)
    plain = run()
    net = jax.tree.map(lambda leaf: leaf[0] + 1, plain["equal"])
    save_weights(tmp_path / "net.npz", net)
    given = run(init_from=tmp_path / "net.npz", init_except=("heads",), name="given")
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)  # noqa: E731
    same(given["single"], plain["single"])
    for method in ("equal", "pcgrad"):
        same(given[method].heads, plain[method].heads)
        same(jax.tree.map(lambda leaf: leaf[1], given[method].trunk), net.trunk)


def test_every_method_takes_steps():
    """All in one program, for compilers take longer than steps."""
    tasks = 2
    net, tx = hard_sharing(mlp((3,)), [mlp((2,))] * tasks), optax.adam(0.01)
    rng = np.random.default_rng(0)
    batch = Batch(
        jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
        jnp.asarray(rng.integers(0, 2, (6, tasks))),
    )
    params = net.init(jax.random.key(0), batch.x)

    @jax.jit
    def run(params, batch):
        found = {}
        for name, make in many_tasks.METHODS.items():
            method = make(tasks)
            step = multitask_step(net, cross_entropy, method, tx)
            state = init_state(params, optax.chain(method, tx))
            found[name] = step(jax.random.key(1), state, batch)[0].params
        return found

    found = run(params, batch)
    assert len(found) == 14
    for name, after in found.items():
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after, params)
        assert all(np.isfinite(leaf) and leaf > 0 for leaf in jax.tree.leaves(moved.trunk)), name


def test_nets_side_by_side_share_nothing():
    alone, tasks = mlp((3,)), 2
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 3, (6, tasks)))
    both = many_tasks.side_by_side(alone, tasks)
    params = both.init(jax.random.key(0), x)
    grads, metrics = many_tasks.each_alone(alone)(jax.random.key(0), 0, params, Batch(x, y))
    logits, losses = both.apply(params, x), []
    for task in range(tasks):
        own, found = (jax.tree.map(lambda leaf: leaf[task], tree) for tree in (params, grads))  # noqa: B023
        expected, each = supervised(alone, cross_entropy)(None, 0, own, Batch(x, y[:, task]))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
        np.testing.assert_allclose(logits[:, task], alone.apply(own, x), rtol=1e-5)
        losses.append(each["loss"])
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-6)
    assert not np.allclose(*jax.tree.leaves(params)[1])  # kernels that start differently


def test_conflicts_are_negative_inner_products_of_the_coming_batches():
    """Of three tasks one pair conflicts in even steps, and two pairs do in odd ones."""

    def grads(key, step, params, batch):
        even = jnp.array([[1.0, 0.0], [-1.0, 0.5], [0.0, 1.0]])
        odd = jnp.array([[1.0, 0.0], [-1.0, 0.5], [-1.0, 1.0]])
        trunk = params * jnp.where(batch % 2 == 0, even, odd)
        return TaskGrads(jnp.zeros(3), {"w": trunk[:, :1], "b": trunk[:, 1]}, ()), {}

    stream = jax.tree_util.Partial(lambda key, step: step)
    found = many_tasks.conflicts(grads, 3)(
        stream, run_keys(0, 2), jnp.array([1.0, 0.0]), jnp.int32(5)
    )
    np.testing.assert_allclose(found, [(2 + 1 + 2) / 9, 0], rtol=1e-6)


def test_scores_are_those_of_their_definitions():
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    margins = np.array([[2.0, 1.0], [-1.0, 3.0], [-1.0, -2.0], [4.0, -1.0]])
    shift = np.array([[9.0, -9.0], [0.0, 5.0], [7.0, 0.0], [-5.0, 0.0]])  # says nothing
    logits = np.stack([shift, shift + margins], axis=-1)[None]
    found = many_tasks.scores(logits, labels)
    # Yes to 0 and 3 where 0 and 2 are right; yes to 0 and 1 where 1 and 3 are.
    assert [task["mean"] for task in found["accuracy"]] == [0.5, 0.5]
    assert [task["mean"] for task in found["f1"]] == [0.5, 0.5]
    assert found["ten_way"]["mean"] == 0.75  # 0, 1 and 2, but not 3
    never = many_tasks.scores(np.stack([shift, shift - 1], -1)[None], np.zeros_like(labels))
    assert never["f1_mean"]["mean"] == 0
    more = many_tasks.scores(
        np.eye(3)[None, :, None].repeat(2, 2), np.array([[0, 0], [1, 2], [2, 1]])
    )
    assert [task["mean"] for task in more["accuracy"]] == [1, pytest.approx(1 / 3)]
    assert more["mean"]["mean"] == pytest.approx(2 / 3)
    assert many_tasks.base_rates(np.array([[0, 1], [0, 2], [0, 2], [1, 0]])) == [0.75, 0.5]


def made_up(case="overlaid", seeds=3, **means):
    def figures(mean):
        around = np.linspace(-0.01, 0.01, seeds) if seeds > 1 else np.zeros(1)
        summary = seeds_summary(mean + around)
        rest = {"accuracy": [summary] * 2, "f1_mean": summary, "ten_way": summary}
        rest |= {"conflicts": summary, "ms_per_step": 2.0, "parameters": 50, "f1": [summary] * 2}
        return {"mean": summary, **rest}

    methods = {name: figures(mean) for name, mean in means.items()}
    methods["single"] |= {"parameters": 100, "ms_per_step": 4.0, "conflicts": None}
    config = {"case": case, "seeds": seeds, "seed": 0, "batch": 8, "validation": 10, "probes": 2}
    run = {"steps": 6, "wall_seconds": 1, "compile_seconds": 1, "device": "1 x cpu"}
    return {
        "methods": methods,
        "config": config | {"decay_steps": 6},
        "run": run | {"machine": "a box", "directory": "runs/a"},
        "tasks": ("left", "right"),
        "base_rates": [0.5, 0.5],
        "images": {"test": 12},
    }


def rows_of(said):
    """The first table as a list per row, by its first cell."""
    lines = said.split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells}


def test_differences_are_paired_by_seed():
    """Seeds that differ alike for all methods leave no interval of a difference."""
    result = made_up(single=0.95, equal=0.9, mgda=0.92, rlw=0.89)
    rows = rows_of(words.report(result))
    assert rows["equal"]["minus single"] == "-5.00 ± 0.00"
    assert rows["equal"]["minus equal"] == rows["two single nets"]["minus single"] == ""
    assert rows["mgda"]["minus equal"] == "2.00 ± 0.00"
    assert rows["rlw"]["minus equal"] == "-1.00 ± 0.00"
    assert rows["equal"]["conflicts %"].startswith("90 ")
    assert "100 in two single nets, 50 in the shared net" in words.report(result)
    # What an earlier revision stored beside the numbers is not read.
    assert words.report({**result, "finding": "x"}) == words.report(result)

    rows = rows_of(of_questions.report(made_up("binary", single=0.95, equal=0.96)))
    assert rows["one net, equal, minus ten single nets"]["F1 in %"] == "1.00 ± 0.00"
    assert rows["one net, equal"]["parameters"] == "50"


def test_the_old_command_names_the_new_experiment(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["multitask.py", "--case", "binary", "--seeds", "1"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(multitask.__file__, run_name="__main__")
    assert stop.value.code == 2
    said = "error: --case binary is now an experiment of its own. Run scripts/run many_questions\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"methods": ("equal", "best")}, "`methods=best`: choose among equal uncertainty"),
        ({"methods": ("mgda",)}, "`methods=mgda`: add equal"),
        ({"methods": ("equal", "equal")}, "`methods=equal equal`: .* each name once"),
        (
            {"eval_every": 3, "run": RunFlags(log_every=2)},
            "`eval_every=3` must be a multiple of `log_every=2`",
        ),
        ({"validation": 1}, "`validation=1`: choose at least 2"),
        ({"validation": 40}, "`validation=40` of 40 images"),
        ({"lr": 0.0}, "`lr=0.0`: choose a number above 0"),
        ({"probes": 0}, "`probes=0`: choose at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, wrong, says):
    with pytest.raises(InputError, match=says):
        multitask.main(tiny(**wrong))


@pytest.mark.parametrize("side", [28, 36])
def test_the_trunk_sees_single_and_overlaid_digits(side):
    params = jax.eval_shape(
        multitask.trunk().init, jax.random.key(0), jnp.zeros((1, side, side, 1))
    )
    flat = 16 * ((((side - 4) // 2) - 4) // 2) ** 2
    dense = [(flat, 120), (120, 84), (84, 50)]
    expected = 6 * 26 + 16 * 151 + sum(a * b + b for a, b in dense)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
