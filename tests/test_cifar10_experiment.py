"""The CIFAR-10 experiment on made-up images: resume, devices, recipes, prediction."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import airbench, cifar10
from jaxdl.data.sets import images
from jaxdl.data.sets.images import ImageData
from jaxdl.errors import InputError
from jaxdl.models.airnet import airnet
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.recipes import cifar10 as recipe
from jaxdl.recipes import supervised
from jaxdl.runs.cli import command_line
from jaxdl.runs.config import RunFlags, check, flat, unflat
from jaxdl.runs.run import open_run
from jaxdl.runs.weights import save_weights

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FULL_AIRNET = airbench.airnet
FAST = {"fast": airbench.Config()}
pytestmark = pytest.mark.usefixtures("compiled_once")


def made_up(data, split, *, data_dir=None):
    """Each class a pattern of colours in noise: 80 images to train on, half of them held out."""
    rng = np.random.default_rng(split == "test")
    labels = np.arange(80 if split == "train" else 40, dtype=np.int32) % 10
    patterns = np.random.default_rng(7).integers(40, 216, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    noisy = patterns[labels] + rng.normal(0, 20, (len(labels), 32, 32, 3))
    return ImageData(
        np.clip(noisy, 0, 255).astype(np.uint8), labels, CLASSES, recipe.MEAN, recipe.STD
    )


def replace_data(patch):
    for module in (images, cifar10, airbench):
        patch.setattr(module, "image_arrays", made_up)
    patch.setattr(airbench, "airnet", partial(airnet, widths=(6,)))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch):
    replace_data(monkeypatch)


def config_of(preset, folder, **changes):
    flags = {"runs_dir": folder, "name": "run", "log_every": 2, "devices": 1, "save_minutes": 0.0}
    flags |= changes.pop("flags", {})
    small = {"steps": 6, "batch": 16, "eval_every": 4, "validation": 40, "dtype": "float32"}
    preset = {**cifar10.PRESETS, **FAST}[preset]
    return unflat(type(preset), flat(preset) | small | changes | {"run": RunFlags(**flags)})


def changed(config, **changes):
    return unflat(type(config), {**flat(config), "run": config.run, **changes})


def logits(config):
    module = airbench if isinstance(config, airbench.Config) else cifar10
    directory = config.run.runs_dir / module.__name__.split(".")[1] / "run"
    return np.asarray(module.load(directory)(made_up("", "test")[0]))


def test_a_run_is_trained_judged_drawn_reprinted_and_loaded(tmp_path, capsys):
    config = config_of("lenet", tmp_path, steps=60, eval_every=20, lr=0.02, seeds=2)
    result = cifar10.main(config)
    directory = tmp_path / "cifar10" / "run"
    for name in ("predictions", "confusion", "learning_curve"):
        assert (directory / f"{name}.png").stat().st_size > 10_000
    first = capsys.readouterr().out
    assert cifar10.main(config) == result
    assert capsys.readouterr().out.splitlines()[-6:] == first.splitlines()[-6:]

    assert result["test"]["accuracy"]["values"][0] > 0.5  # by chance 0.1
    assert result["train_images"] == 40
    found = logits(config)
    right = found.argmax(1) == made_up("", "test").labels
    assert right.mean() == pytest.approx(result["test"]["accuracy"]["values"][0])

    shown = cifar10.main(changed(config, predict=directory))
    assert shown["predicted"] == [CLASSES[i] for i in found[:10].argmax(1)]
    assert shown["true"] == list(CLASSES)
    assert "| predicted" in capsys.readouterr().out
    assert (directory / "predicted.png").exists()


@pytest.fixture
def _no_pictures(monkeypatch):
    monkeypatch.setattr(supervised, "draw", lambda *_: None)


def fast_config(folder, devices=1):
    """All augmentation, groups of parameters, batch norm, momentum and lookahead."""
    changes = {"lr": 0.05, "bias_scale": 1.0, "cutout": 8}
    return config_of("fast", folder, flags={"devices": devices}, **changes)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """A run of `fast_config` on one device, and its result."""
    config = fast_config(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        replace_data(patch)
        patch.setattr(supervised, "draw", lambda *_: None)
        return config, airbench.main(config)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pictures")
def test_a_resumed_run_equals_one_that_never_stopped(never_stopped, tmp_path, monkeypatch):
    whole, expected = never_stopped
    parted = fast_config(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(recipe, "measure", lambda *_: lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # at the validation after step 4
            airbench.main(parted)
    assert list((tmp_path / "airbench/run/checkpoints").iterdir())
    found = airbench.main(parted)
    # To the last bit: the mean loss of all test images, and the metrics of every step.
    assert found["test"] == expected["test"]
    lines = [
        (config.run.runs_dir / "airbench/run/metrics.jsonl").read_text()
        for config in (whole, parted)
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_coins_that_flip_and_move_images_fall_as_if_the_run_had_never_stopped(
    tmp_path, monkeypatch
):
    """The other augmentation, which remembers nothing, with a net that compiles soon."""
    monkeypatch.setattr(cifar10, "net", lambda *_: without_stats(mlp((10,))))

    def trained(folder, **changes):
        changes |= {"flip": "random", "schedule": "staircase"}
        config = config_of("resnet18", tmp_path / folder, **changes)
        with open_run("cifar10", config) as run:
            return cifar10.train(config, run, made_up("", "train"), None)

    trained("parted", steps=4)  # in the middle of an epoch, which ends with step 5
    jax.tree.map(np.testing.assert_array_equal, trained("parted"), trained("whole"))


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.slow
@pytest.mark.parametrize("module", [cifar10, airbench])
def test_a_schedule_that_follows_the_steps_refuses_others_and_goes_on_if_it_is_fixed(
    tmp_path, monkeypatch, module
):
    monkeypatch.setattr(module, "net", lambda *_: without_stats(mlp((10,))))
    name = module.__name__.split(".")[1]
    preset, changes = "resnet18" if module is cifar10 else "fast", {"steps": 4}
    if module is airbench:  # the groups of another net, and views
        changes |= {"views": False, "flip": "random"}
    follows = config_of(preset, tmp_path / "follows", **changes)
    assert module.main(follows)["run"]["steps"] == 4
    refused = pytest.raises(InputError, match=r"`steps=4`, and its schedule .*`decay_steps=`")
    with refused:
        module.main(changed(follows, steps=6))
    directory = tmp_path / "follows" / name / "run"  # as if it had been stopped before
    (directory / "result.json").unlink()
    shutil.rmtree(directory / "checkpoints/4")
    with refused:
        module.main(changed(follows, steps=3))

    def trained(folder, *stops):
        for steps in stops:
            config = config_of(preset, tmp_path / folder, **changes | {"steps": steps})
            result = module.main(changed(config, decay_steps=4))
        return result["test"], (tmp_path / folder / name / "run/metrics.jsonl").read_text()

    assert trained("parted", 3, 4, 6) == trained("whole", 6)


def test_lookahead_ends_with_the_schedule(monkeypatch):
    found = {}
    monkeypatch.setattr(airbench, "lookahead", lambda step, **options: found.update(options))
    config = airbench.Config(decay_steps=100)
    for settings in (config, dataclasses.replace(config, decay_steps=0, steps=100)):
        airbench.training_step(settings, optax.identity())
        shares = [float(found["keep"](jnp.int32(i))) for i in (0, 50, 100, 200)]
        np.testing.assert_allclose(shares, 0.95**5 * np.array([0, 1 / 8, 1, 1]), rtol=1e-6)
        assert found["steps"] == 100


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pictures")
def test_two_devices_equal_one_with_batch_norm(never_stopped, tmp_path):
    two = fast_config(tmp_path, devices=2)
    airbench.main(two)
    found = [logits(config) for config in (never_stopped[0], two)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert np.abs(found[0]).max() > 0.01


def rates(config, count, images=50_000):
    """The learning rates of the first steps, seen through parameters that only sum them up."""
    module = airbench if isinstance(config, airbench.Config) else cifar10
    tx = module.optimiser(dataclasses.replace(config, momentum=0.0, weight_decay=0.0), images)

    def one(state, _):
        update, state = tx.update({"w": jnp.float32(-1)}, state, {"w": jnp.float32(0)})
        return state, update["w"]

    return np.asarray(jax.lax.scan(one, tx.init({"w": jnp.float32(0)}), None, count)[1])


def test_the_learning_rates_are_those_of_the_recipes():
    lenet = dataclasses.replace(cifar10.PRESETS["lenet"], batch=50)
    found = rates(lenet, 60, images=200)  # an epoch is 4 steps
    np.testing.assert_allclose(found, 0.001 * 0.1 ** (np.arange(60) // 28), rtol=1e-5)

    resnet = dataclasses.replace(cifar10.PRESETS["resnet18"], steps=50)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(50) / 50))
    np.testing.assert_allclose(rates(resnet, 50), expected, rtol=1e-4, atol=1e-7)

    fast = airbench.Config()
    expected = 1.5 * np.interp(np.arange(475), [0, 0.23 * 475, 475], [0.2, 1, 0.07])
    np.testing.assert_allclose(rates(fast, 475), expected, rtol=1e-4)

    for preset in (resnet, fast):  # after its end a schedule stays where it is
        longer = dataclasses.replace(preset, decay_steps=50, steps=70)
        found = rates(longer, 70)
        np.testing.assert_allclose(found[:50], rates(dataclasses.replace(preset, steps=50), 50))
        np.testing.assert_allclose(found[50:], 0.0 if preset is resnet else 1.5 * 0.07, rtol=1e-5)


def test_each_group_of_the_fast_net_moves_as_torch_would_move_it():
    """Nesterov momentum with weight decay in the gradient, written as PyTorch documents it."""
    config = airbench.Config(steps=10, batch=50, whitening_epochs=1.0)
    rng = np.random.default_rng(0)
    shapes = {"block1_1_conv": "kernel", "block1_1_norm": "bias", "head": "kernel"}
    params = {name: {leaf: rng.normal(size=3)} for name, leaf in shapes.items()}
    params["whitening_bias"] = rng.normal(size=3)
    tx = airbench.optimiser(config, 150)  # an epoch is 3 steps
    state, now, buffers = tx.init(params), params, jax.tree.map(np.zeros_like, params)
    ours = params
    for step in range(5):
        grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        updates, state = tx.update(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        rate = 1.5 * np.interp(step / 10, [0, 0.23, 1], [0.2, 1, 0.07])

        def moved(path, p, g, b, step=step, rate=rate):
            scale = 64 if "norm" in str(path) else 1
            g = g + 0.0153 / 11.5 / scale * p
            b = 0.85 * b + g
            frozen = "whitening" in str(path) and step >= 3
            return p - (0 if frozen else scale * rate) * (g + 0.85 * b), b

        pairs = jax.tree.map_with_path(moved, now, grads, buffers)
        now, buffers = jax.tree.transpose(
            jax.tree.structure(params), jax.tree.structure((0, 0)), pairs
        )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(now), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation": 50_000}, "`validation=50000`: choose at most 49,999"),
        ({"images": 50_000}, "`images=50000`: choose at most 49,960"),
        ({"translate": 32}, "`translate=32`"),
        ({"smoothing": 1.0}, "`smoothing="),
        ({"eval_every": 3}, "`eval_every=3` must be a multiple of `log_every=2`"),
        ({"net": "resnet18", "dropout": 0.1}, "resnet18 has no dropout"),
        ({"init_from": Path("net.npz")}, "`init_from=net.npz`: there is no such file or run"),
        ({"lr": 0.0}, "`lr=0.0`: choose a number above 0"),
        ({"decay_steps": -1}, "`decay_steps=-1`: choose at least 0"),
        ({"decay_steps": 6}, "`decay_steps=` is for `schedule=cosine`"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(changes, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        cifar10.main(config_of("lenet", tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_prediction_without_a_run_says_so(tmp_path):
    with pytest.raises(InputError, match="there is no run"):
        cifar10.main(config_of("lenet", tmp_path, predict=tmp_path / "nothing"))


def test_training_starts_from_given_weights_and_needs_them_only_then(tmp_path, monkeypatch):
    def load(path, params, stats):
        assert path == tmp_path / "weights.npz"
        return jax.tree.map(lambda leaf: leaf + 1, params), stats, ()

    tiny = partial(airnet, widths=(4,))  # in place of the large net
    monkeypatch.setattr(cifar10, "resnet18", lambda classes, *, stem, **rest: tiny(classes, **rest))
    monkeypatch.setattr(cifar10, "load_torch_weights", load)
    np.savez(tmp_path / "weights.npz", **{"conv1.weight": np.zeros(1)})
    config = config_of("resnet18", tmp_path, init_from=tmp_path / "weights.npz", lr=1e-9)
    plain, _ = cifar10.initial(changed(config, init_from=None), made_up("", "train")[0])
    given, _ = cifar10.initial(config, made_up("", "train")[0])
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(a + 1, b)
    with open_run("cifar10", config) as run:
        run._training.save(given)
    monkeypatch.setattr(cifar10, "load_torch_weights", lambda *_: 1 / 0)
    assert logits(config).shape == (40, 10)


def test_any_net_starts_from_weights_of_jaxdl(tmp_path):
    config = config_of("lenet", tmp_path, seed=1)
    other, _ = cifar10.initial(changed(config, seed=3), made_up("", "train")[0])
    save_weights(tmp_path / "net.npz", jax.tree.map(lambda leaf: leaf[0], other.params))
    config = changed(config, init_from=tmp_path / "net.npz")
    given, _ = cifar10.initial(config, made_up("", "train")[0])
    for a, b in zip(jax.tree.leaves(other.params), jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(a[0], b[-1])


def test_every_preset_is_in_range():
    for preset in cifar10.PRESETS.values():
        check(preset)
        cifar10.check(preset)
    check(airbench.Config())
    airbench.check(airbench.Config())


def test_a_label_that_the_net_has_no_output_for_is_named_before_anything_compiles(
    tmp_path, monkeypatch
):
    data = made_up("", "train")
    data.labels[3] = 10
    monkeypatch.setattr(cifar10, "initial", lambda *_: (None, None))
    config = config_of("lenet", tmp_path)
    run = SimpleNamespace(flags=config.run, train=None)
    with pytest.raises(InputError, match="example 3 has the label 10, but the 10 classes have the"):
        cifar10.train(config, run, data, None)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize(
    ("preset", "dtype", "changes"),
    [
        ("resnet18", "float32", {"batch": 32, "lr": 0.02}),
        ("fast", "float32", {"batch": 64, "lr": 0.5}),
        ("fast", "bfloat16", {"batch": 64, "lr": 0.5}),
    ],
)
def test_the_full_nets_learn_512_images_by_heart(preset, dtype, changes, tmp_path, monkeypatch):
    """Labels by chance: there is nothing to generalise, so that each image must be remembered."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (512, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    labels = rng.integers(0, 10, 512, dtype=np.int32)
    data = ImageData(smooth, labels, CLASSES, recipe.MEAN, recipe.STD)
    monkeypatch.setattr(images, "image_arrays", lambda *_, **__: data)
    monkeypatch.setattr(airbench, "airnet", FULL_AIRNET)
    module = airbench if preset == "fast" else cifar10
    still = {"flip": "none", "translate": 0, "validation": 0, "steps": 200}
    still |= {"views": False} if preset == "fast" else {}
    flags = {"log_every": 100, "save_minutes": 2.0}
    whole = {"eval_every": 200, "dtype": dtype, "smoothing": 0.0, "flags": flags}
    result = module.main(config_of(preset, tmp_path, **still, **changes, **whole))
    assert result["train"]["accuracy"]["mean"] > 0.95


@pytest.mark.parametrize("flags", ["--net airnet", "--preset=fast", "--views", "--bias-scale 2"])
def test_the_old_command_names_the_new_experiment(flags, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cifar10.py", *flags.split()])
    with pytest.raises(SystemExit) as stop:
        command_line(cifar10.main, cifar10.Config, presets=cifar10.PRESETS, moved=cifar10.MOVED)
    assert stop.value.code == 2
    assert "is now an experiment of its own. Run scripts/run airbench" in capsys.readouterr().err
