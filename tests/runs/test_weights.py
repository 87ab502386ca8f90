"""Weights from files and runs, as they are saved, matched, refused, and known again."""

import dataclasses
import importlib
import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import (
    continual,
    dqn,
    few_shot,
    limited_data,
    long_memory,
    mnist,
    navigation,
    sequences,
    sinusoid,
    transfer,
)
from jaxdl.data.sets.rotated_permuted import task_after_task
from jaxdl.errors import InputError, RunError
from jaxdl.files import leaves
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import mlp
from jaxdl.recipes import cells
from jaxdl.recipes.agents import start as start_of_agent
from jaxdl.recipes.continual import start as start_of_stream
from jaxdl.recipes.few_labels import Training, fresh, problem_of
from jaxdl.recipes.few_shot import learner_of_images, learner_of_sines
from jaxdl.rl import point
from jaxdl.rl.cartpole import cart_pole
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import flat, unflat
from jaxdl.runs.identity import load_config
from jaxdl.runs.run import RunFlags, open_run
from jaxdl.runs.weights import export_weights, load_weights, save_weights, started, weights_digest
from jaxdl.train.streams import run_keys
from jaxdl.types import TrainState
from tests import tiny_run

RNG = np.random.default_rng(0)


def net(*seeds, classes=2):
    """Parameters and statistics, with a leading axis of seeds if wished."""
    draw = lambda *shape: jnp.asarray(RNG.normal(size=(*seeds, *shape)), jnp.float32)  # noqa: E731
    params = {"trunk": [{"kernel": draw(3, 4)}, {}], "head": {"kernel": draw(4, classes)}}
    return params, {"norm": {"mean": draw(4)}}


def state_of(params, stats):
    return TrainState(jnp.int32(7), params, optax.adam(0.1).init(params), stats)


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def save_run(directory, params, stats=(), kind="checkpoints"):
    tree = {"step": jnp.int32(3), "params": params, "score": jnp.zeros(2)}
    with Checkpoints(directory / kind) as checkpoints:
        checkpoints.save(3, state_of(params, stats) if kind == "checkpoints" else tree)
        checkpoints.wait()
    return directory


@pytest.fixture
def file(tmp_path):
    save_weights(tmp_path / "net.npz", *net())
    return tmp_path / "net.npz"


def test_all_seeds_start_from_the_net_in_a_file(tmp_path):
    given = net()
    save_weights(tmp_path / "net.npz", *given)
    state = state_of(*net(3))
    found = started(state, tmp_path / "net.npz")
    for seed in range(3):
        equal(jax.tree.map(lambda leaf: leaf[seed], (found.params, found.stats)), given)  # noqa: B023
    equal(found.opt_state, state.opt_state)
    assert found.step == 7


def test_each_seed_starts_from_a_seed_of_a_run(tmp_path):
    given = net(2)
    found = started(state_of(*net(2)), save_run(tmp_path, *given))
    equal((found.params, found.stats), given)


def test_one_seed_of_a_run_starts_all(tmp_path):
    given = net(1)
    found = started(state_of(*net(2)), save_run(tmp_path, *given))
    equal(jax.tree.map(lambda leaf: leaf[1:], (found.params, found.stats)), given)


def test_the_best_of_a_run_comes_before_its_last(tmp_path):
    best = net(2)[0]
    save_run(tmp_path, net(2)[0])
    save_run(tmp_path, best, kind="best")
    equal(started(state_of(net(2)[0], ()), tmp_path).params, best)


def test_a_path_is_named_as_it_was_given(tmp_path):
    """`load_weights` named the argument `init_from`, which its caller never gave."""
    words = "nope.npz: there is no such file"
    with pytest.raises(InputError, match=f"^{words}"):
        load_weights("nope.npz")
    with pytest.raises(InputError, match=r"^`init_from=nope\.npz`: there is no such file"):
        started(state_of(*net(1)), "nope.npz")


def test_an_exported_seed_is_that_of_the_run(tmp_path):
    given = net(2)
    export_weights(save_run(tmp_path / "run", *given), tmp_path / "one.npz", seed=1)
    found = started(state_of(*net(1)), tmp_path / "one.npz")
    equal((found.params, found.stats), jax.tree.map(lambda leaf: leaf[1:], given))
    with pytest.raises(InputError, match=r"`seed=2`: .* has seeds 0 to 1\. Choose"):
        export_weights(tmp_path / "run", tmp_path / "two.npz", seed=2)
    with pytest.raises(InputError, match="let the name end in it"):
        export_weights(tmp_path / "run", tmp_path / "two.pt")


def test_a_head_of_other_classes_starts_anew_only_where_one_says_so(file):
    state = state_of(*net(2, classes=5))
    wrong = r"net.npz`: params/head/kernel is \(4, 2\) there and \(4, 5\) here; `init_except=head`"
    with pytest.raises(InputError, match=wrong):
        started(state, file)
    found = started(state, file, ("head",))
    equal(found.params["head"], state.params["head"])
    equal(found.params["trunk"][0]["kernel"][1], load_weights(file).arrays["params/trunk/0/kernel"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda params, stats: (params, {}),
            r"stats/norm/mean is \(4,\) there and absent here$",
        ),
        (
            lambda params, stats: ({**params, "more": jnp.zeros((2, 1))}, stats),
            r"params/more is absent there and \(1,\) here; `init_except=more` starts",
        ),
        (
            lambda params, stats: ({"head": params["head"]}, stats),
            r"params/trunk/0/kernel is \(3, 4\) there and absent here$",
        ),
    ],
)
def test_another_net_is_refused_by_its_first_leaf(file, change, says):
    with pytest.raises(InputError, match=says):
        started(state_of(*change(*net(2))), file)


def test_weights_of_another_learner_are_told_as_such(file):
    """No name in common, as of MAML in MAML++: to start each layer anew would be no start."""
    params, _ = net(2)
    state = state_of({"start": params, "rates": jnp.zeros((2, 5))}, {})
    says = (
        r"no array with a name of this net or learner\. It has params/head/kernel,"
        r" params/trunk/0/kernel, stats/norm/mean, and params/rates, params/start/head/kernel,"
        r" params/start/trunk/0/kernel are wanted\. Give weights of the same net and learner"
    )
    with pytest.raises(InputError, match=says):
        started(state, file)


def test_what_cannot_be_meant_is_refused(file, tmp_path):
    state = state_of(*net(2))

    def refused(path, says, *rest, error=InputError):
        with pytest.raises(error, match=says):
            started(state, path, *rest)

    refused(tmp_path / "nothing", "`init_from=.*nothing`: there is no such file or run")
    refused(tmp_path, "no run with a checkpoint")
    refused(file, "`init_except=fc`: the layers of this net are head norm trunk", ("fc",))
    refused(save_run(tmp_path / "three", *net(3)), "has 3 seeds: ask for `seeds=3`, or export one")
    save_run(tmp_path / "many" / "equal", *net(2))
    refused(tmp_path / "many", "choose one of its parts: equal")
    (tmp_path / "net.txt").write_text("mine")
    refused(tmp_path / "net.txt", "weights are read from .safetensors or .npz")
    np.savez(tmp_path / "torch.npz", **{"fc.weight": np.zeros(2)})
    refused(tmp_path / "torch.npz", "their names begin with params/, and it has fc.weight. Give")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(file, "net.npz is no .npz file of numbers")


def test_a_damaged_checkpoint_gives_no_weights(tmp_path):
    kept = save_run(tmp_path, *net(2)) / "checkpoints" / "3"
    record = kept / "record" / "metadata"
    whole = record.read_text()
    # As if a bit of an array had flipped: Orbax itself would hand it on without a word.
    record.write_text(re.sub(r'("crc32": *)', r"\g<1>1", whole))
    with pytest.raises(RunError, match=r"cannot be read \(its checksum is wrong\)"):
        load_weights(tmp_path)
    record.write_text(whole)
    file = next((kept / "tree").rglob("d/*"))
    file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(RunError, match="cannot be read"):
        load_weights(tmp_path)


def test_the_arrays_of_a_checkpoint_are_found_without_its_tree(tmp_path):
    tree = {
        "a": (jnp.ones(2), {"b c": jnp.zeros((0, 3)), "d": jnp.int8(4)}),
        "n": {5: jnp.zeros(1)},
    }
    tree = {"x": state_of({"a/b": jnp.ones(2, jnp.bfloat16)}, tree["a"]), "y": tree}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        found = checkpoints.arrays()
    keystr = jax.tree_util.keystr
    expected = jax.tree_util.tree_leaves_with_path(tree)
    for (leaf, array), (place, wanted) in zip(found, expected, strict=True):
        assert leaves.name(leaf.path) == keystr(place, simple=True, separator="/")
        np.testing.assert_array_equal(array, wanted)
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert (leaf.dtype, leaf.shape) == (wanted.dtype.name, wanted.shape)


# ---- two weights of one name


def clashing(*seeds):
    """Two trees in which `a/b` is the name of two arrays."""
    ones, zeros = jnp.ones((*seeds, 2)), jnp.zeros((*seeds, 2))
    return [
        {"a/b": ones, "a": {"b": zeros}},
        {"a": OrderedDict([("b", ones), ("c", zeros)]), "a/b": zeros},
        OrderedDict([("1", ones), (1, zeros)]),
    ]


@pytest.mark.parametrize("case", range(3))
def test_two_weights_of_one_name_are_refused_everywhere(case, tmp_path):
    says = r"two arrays of the net have the one name 'params/(a/b|1)': rename a layer"
    with pytest.raises(InputError, match=says):
        save_weights(tmp_path / "net.npz", clashing()[case])
    assert not (tmp_path / "net.npz").exists()
    # The run itself stores and resumes them: only names are ambiguous.
    run = save_run(tmp_path / "run", clashing(2)[case])
    for use in (load_weights, weights_digest, lambda run: export_weights(run, tmp_path / "a.npz")):
        with pytest.raises(InputError, match=says):
            use(run)
    np.savez(tmp_path / "other.npz", **{"params/a/b": np.ones(2, np.float32)})
    with pytest.raises(InputError, match=says):
        started(state_of(clashing(2)[case], ()), tmp_path / "other.npz")


def test_the_names_of_an_optimiser_may_clash(tmp_path):
    params = {"w": jnp.ones((2, 3))}
    state = state_of(params, ())._replace(opt_state=clashing(2)[0])
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, state)
    assert load_weights(tmp_path).arrays.keys() == {"params/w"}


ODD = ["a/b", "a.b", "a.npy", "a", "", "it's", "a']['b", "file", "allow_pickle", "ä\u2028", ".."]


def test_weights_of_odd_names_find_their_places_again(tmp_path):
    params = {name: {"w": jnp.full((2, 3), i)} for i, name in enumerate(ODD)}
    params["list"] = [jnp.ones((2, 1)), {0: jnp.ones((2, 1)) * 2}]
    zeros = state_of(jax.tree.map(jnp.zeros_like, params), ())
    equal(started(zeros, save_run(tmp_path / "run", params)).params, params)
    for seed in range(2):
        export_weights(tmp_path / "run", tmp_path / "one.npz", seed=seed)
        equal(started(zeros, tmp_path / "one.npz").params, params)
    save_weights(tmp_path / "same.npz", jax.tree.map(lambda leaf: leaf[0], params))
    assert weights_digest(tmp_path / "one.npz") == weights_digest(tmp_path / "same.npz")


def test_a_net_that_is_one_array_is_saved_and_starts(tmp_path):
    save_weights(tmp_path / "net.npz", jnp.arange(3.0))
    found = started(state_of(jnp.zeros((2, 3)), ()), tmp_path / "net.npz")
    np.testing.assert_array_equal(found.params, [[0, 1, 2]] * 2)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_a_file_cannot_hold_are_refused_and_a_run_holds_them(name, tmp_path):
    params = {name: jnp.ones((2, 3))}
    with pytest.raises(InputError, match="cannot be called"):
        save_weights(tmp_path / "net.npz", params)
    zeros = state_of(jax.tree.map(jnp.zeros_like, params), ())
    run = save_run(tmp_path / "run", params)
    equal(started(zeros, run).params, params)
    assert weights_digest(run)


def test_a_layer_is_the_first_key_and_not_the_first_part_of_a_name(tmp_path):
    # As in the nets of Haiku, whose keys have slashes.
    net = {"mlp/~/0": {"w": jnp.ones(2)}, "mlp/~/1": {"w": jnp.ones(3)}, "mlp": {"w": jnp.ones(1)}}
    save_weights(tmp_path / "net.npz", net)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape)), net)
    found = started(state_of(zeros, ()), tmp_path / "net.npz", ("mlp",)).params
    assert {layer: leaf["w"].tolist()[0] for layer, leaf in found.items()} == {
        "mlp/~/0": [1, 1],
        "mlp/~/1": [1, 1, 1],
        "mlp": [0],
    }
    # What is there and not here belongs to the layer here that it may belong to.
    zeros["mlp/~/1"] = {"v": zeros["mlp/~/1"]["w"]}
    with pytest.raises(
        InputError, match=r"params/mlp/~/1/v is absent there .* `init_except=mlp/~/1` starts this"
    ):
        started(state_of(zeros, ()), tmp_path / "net.npz")
    found = started(state_of(zeros, ()), tmp_path / "net.npz", ("mlp/~/1",)).params
    assert found["mlp/~/1"]["v"].tolist() == [[0, 0, 0]]
    with pytest.raises(InputError, match="the layers of this net are mlp mlp/~/0 mlp/~/1"):
        started(state_of(zeros, ()), tmp_path / "net.npz", ("~",))


# ---- what is no finite number


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["file", "checkpoints", "best"])
def test_weights_that_are_not_finite_start_nothing(kind, value, tmp_path):
    params, stats = net(2)
    params["trunk"][0]["kernel"] = params["trunk"][0]["kernel"].at[1, 2, 0].set(value)
    source = tmp_path / ("net.npz" if kind == "file" else "run")
    if kind == "file":  # as others write it
        named = {"params/trunk/0/kernel": params["trunk"][0]["kernel"][1]}
        named["params/head/kernel"] = params["head"]["kernel"][1]
        np.savez(source, **named, **{"stats/norm/mean": stats["norm"]["mean"][1]})
    else:
        save_run(source, params, stats, kind=kind)
    state = state_of(*net(2)) if kind != "best" else state_of(net(2)[0], ())
    says = rf"params/trunk/0/kernel of {source} holds {value}: a training must start from finite"
    with pytest.raises(InputError, match=says):
        started(state, source)
    assert weights_digest(source), "a digest is of any numbers"
    found = started(state, source, ("trunk",))
    equal(found.params["trunk"], state.params["trunk"])
    with pytest.raises(InputError, match=r"params/trunk/0/kernel holds .* finite"):
        save_weights(tmp_path / "new.npz", jax.tree.map(lambda leaf: leaf[1], params))
    if kind == "checkpoints":
        with pytest.raises(InputError, match=r"params/trunk/0/kernel holds .* finite"):
            export_weights(source, tmp_path / "new.npz", seed=1)
        export_weights(source, tmp_path / "other.npz", seed=0)
    assert not (tmp_path / "new.npz").exists()


def test_statistics_that_are_not_finite_start_nothing(tmp_path):
    params, stats = net(2)
    save_run(tmp_path, params, {"norm": {"mean": stats["norm"]["mean"] * np.nan}})
    with pytest.raises(InputError, match=r"stats/norm/mean of .* holds nan"):
        started(state_of(*net(2)), tmp_path)


def test_short_floats_are_written_as_float32_and_read_as_they_were(tmp_path):
    params = {
        "a": jnp.linspace(0, 1, 7, dtype=jnp.bfloat16),
        "b": jnp.arange(-4, 4).astype(jnp.int4),
        "c": jnp.arange(4).astype(jnp.uint2),
        "d": jnp.linspace(0, 1, 7).astype(jnp.float8_e5m2),
    }
    save_weights(tmp_path / "net.npz", params)
    with np.load(tmp_path / "net.npz") as file:
        assert [str(file[f"params/{k}"].dtype) for k in "abcd"] == [
            *("float32", "int8", "uint8", "float32"),
        ]
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    zeros = TrainState(jnp.int32(0), jax.tree.map(jnp.zeros_like, seeds), ())
    equal(started(zeros, tmp_path / "net.npz").params, seeds)


def test_weights_of_another_kind_are_refused(tmp_path):
    save_weights(tmp_path / "net.npz", {"w": np.array([1.7, 3e10])})
    for dtype in (jnp.int32, jnp.bool_):
        state = TrainState(jnp.int32(0), {"w": jnp.zeros((1, 2), dtype)}, ())
        with pytest.raises(InputError, match=rf"params/w of .* is float64, .* needs {dtype.dtype}"):
            started(state, tmp_path / "net.npz")


def test_random_keys_are_no_weights(tmp_path):
    params = {"rng": jax.random.split(jax.random.key(0))}
    says = "params/rng is a random key and no weight: leave it out of the net"
    with pytest.raises(InputError, match=says):
        save_weights(tmp_path / "net.npz", params)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, TrainState(jnp.int32(3), params, ()))
    with pytest.raises(InputError, match=says):
        load_weights(tmp_path)


# ---- digests


def test_the_digest_is_that_of_the_numbers_wherever_they_lie(tmp_path):
    params, stats = net()
    save_weights(tmp_path / "a.npz", params, stats)
    save_weights(tmp_path / "b.npz", params, stats)
    assert weights_digest(tmp_path / "a.npz") == weights_digest(tmp_path / "b.npz")
    changed = {**params, "head": {"kernel": params["head"]["kernel"].at[0, 0].add(1e-6)}}
    save_weights(tmp_path / "b.npz", changed, stats)
    assert weights_digest(tmp_path / "a.npz") != weights_digest(tmp_path / "b.npz")


# ---- in a run


@dataclasses.dataclass(frozen=True)
class Config(tiny_run.Config):
    init_from: Path | None = None
    init_except: tuple[str, ...] = ()


def opened(folder, **changes):
    """The directory of a run with this configuration."""
    flags = {key: changes.pop(key) for key in ("name",) if key in changes}
    config = Config(**changes, run=RunFlags(runs_dir=folder, devices=1, **flags))
    with open_run("tiny", config) as run:
        return run.directory


def test_other_weights_at_the_same_path_make_another_run(file, tmp_path):
    first = opened(tmp_path, init_from=file)
    opened(tmp_path, init_from=file, name="mine")
    moved = file.rename(tmp_path / "moved.npz")
    assert opened(tmp_path, init_from=moved) == first
    assert load_config(first, Config).init_from is None
    save_weights(file, *net())
    assert opened(tmp_path, init_from=file) != first
    with pytest.raises(InputError, match=r"mine started from .*net.npz, and not from what is now"):
        opened(tmp_path, init_from=file, name="mine")
    with pytest.raises(InputError, match=r"mine started from .*net.npz, .* now in none: choose"):
        opened(tmp_path, name="mine")
    opened(tmp_path, init_from=moved, name="mine")


def test_layers_that_start_anew_belong_to_the_run(file, tmp_path):
    name = opened(tmp_path, init_from=file)
    assert opened(tmp_path, init_from=file, init_except=("head",)) != name
    with pytest.raises(InputError, match="`init_except=` says what not to take"):
        opened(tmp_path, init_except=("head",))


def test_who_starts_anew_has_the_name_that_it_had(tmp_path):
    """Of a time when there was no `init_from`."""
    with open_run("tiny", tiny_run.Config(run=RunFlags(runs_dir=tmp_path, devices=1))) as run:
        directory = run.directory
    assert opened(tmp_path) == directory


# ---- in the experiments; cifar10 and multitask have a test in their own files


@pytest.mark.parametrize(
    "name",
    [
        *("sinusoid", "few_shot", "mnist", "cifar10", "sequences"),
        *("limited_data", "multitask", "transfer", "continual", "dqn", "navigation"),
        *("regression_1d", "regression_2d", "tabular"),
    ],
)
def test_an_experiment_has_both_flags(name):
    fields = flat(importlib.import_module(f"experiments.{name}").Config())
    assert fields["init_from"] is None
    assert fields["init_except"] == ()


class Untrained:
    """A run that returns the state that it is given, in place of a training."""

    flags = RunFlags(devices=1)

    def part(self, name, steps=None):
        return self

    def restore(self, state):
        return state

    def train(self, step, stream, keys, state, **_):
        return state

    def best(self, params):
        return params, None


def sinusoid_start(**start):
    config = unflat(sinusoid.Config, {"seeds": 2, **start})
    return sinusoid.train(config, Untrained(), learner_of_sines(flat(config)))


def few_shot_start(**start):
    config = unflat(few_shot.Config, {"seeds": 2, "filters": 2, **start})
    learner, x = learner_of_images(flat(config)), jnp.zeros((1, 8, 16, 1))
    sample = lambda key: SimpleNamespace(support=SimpleNamespace(x=x))  # noqa: E731
    samples = {"train": sample, "validation": sample, "labelled": None}
    tasks = SimpleNamespace(**samples, train_x=x, loss=cross_entropy, metric="accuracy")
    return few_shot.meta_train(config, Untrained(), learner, learner, tasks, run_keys(0, 2))[0]


def mnist_start(**start):
    return mnist.initial(unflat(mnist.Config, {"seeds": 2, "hidden": (3,), **start})).params


def sequences_start(**start):
    small = {"length": 3, "validation": 2, "test": 2}
    config = unflat(long_memory.Config, {**small, **start})
    training = cells.Training(
        hidden=2,
        layers=1,
        lr=0.1,
        decay_steps=0,
        clip=1.0,
        keys=run_keys(0, 2),
        batch=2,
        eval_every=1,
        devices=1,
    )
    return cells.train(Untrained(), "gru", long_memory.drawn(config), training, config.start)


def continual_start(**start):
    config = unflat(continual.Config, {"memories": 4, "tasks": 2, **start})
    images, places = np.zeros((3, 2, 2), np.uint8), np.zeros((2, 4), np.int32)
    stream = task_after_task(images, np.zeros(3, np.int32), places, examples=3)
    method = continual.METHODS["er"](config)
    return start_of_stream(stream, method, run_keys(0, 2), config.start).params


def dqn_start(**start):
    small = {"hidden": (3,), "envs": 2, "prefill": 4, "capacity": 4}
    config = unflat(dqn.Config, {**small, **start})
    agent = dqn.agent_of(config, cart_pole(), "replay")
    state = start_of_agent(agent, run_keys(0, 2), config.start)
    equal(state.params, state.target)
    return state.params


def navigation_start(**start):
    config = unflat(navigation.Config, {"seeds": 2, "hidden": 3, **start})
    return navigation.start(config, point.environment).params


STARTS = [
    *(sinusoid_start, few_shot_start, mnist_start, sequences_start),
    *(continual_start, dqn_start, navigation_start),
]


@pytest.mark.parametrize("start", STARTS)
def test_a_training_starts_from_given_weights_but_for_one_layer(start, tmp_path):
    own = start()
    net = jax.tree.map(lambda leaf: leaf[0] + 1, own)
    save_weights(tmp_path / "net.npz", net)
    new = sorted(net)[-1]
    given = start(init_from=tmp_path / "net.npz", init_except=(new,))
    assert len(given) > 1
    equal(given[new], own[new])
    for seed in range(2):
        taken = jax.tree.map(lambda leaf: leaf[seed], given)  # noqa: B023
        equal({**taken, new: net[new]}, net)


def test_a_file_holds_one_net_and_not_those_of_three_cells(file):
    with pytest.raises(InputError, match="holds one net: choose one `cell=`"):
        sequences.check(unflat(sequences.Config, {"init_from": file}))


@pytest.mark.parametrize("experiment", [limited_data, transfer])
def test_transfer_takes_a_trunk_and_a_new_head(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "net", lambda classes: mlp((3, 3, classes)))
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2
    problem = problem_of(images, labels, (images, labels), (2, 1))
    keys = run_keys(0, 2)
    start = fresh(problem, experiment.net(2), keys)
    given = experiment.net(7).init(jax.random.key(5), jnp.zeros((1, 2, 2, 1)))
    save_weights(tmp_path / "net.npz", given)
    fields = {"init_from": tmp_path / "net.npz", "init_except": ("Dense_1",)}
    config = unflat(experiment.Config, {"seeds": 2, "run": RunFlags(devices=1), **fields})
    training = Training(keys, 1, 1, 1)
    if experiment is limited_data:
        found = limited_data.starts_of(config, Untrained(), problem, training)["transfer"]
    else:
        source = images, labels
        found, judged = transfer.transferred(config, Untrained(), problem, start, training, source)
        assert judged is None
    for new in ("Dense_1", "Dense_2"):
        equal(found[new], start[new])
    for seed in range(2):
        equal(jax.tree.map(lambda leaf: leaf[seed], found["Dense_0"]), given["Dense_0"])  # noqa: B023
