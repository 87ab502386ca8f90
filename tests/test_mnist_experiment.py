"""The MNIST experiment on a tiny published set: it trains, resumes, saves, loads and predicts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import mnist
from jaxdl.data.sets.images import image_arrays, image_splits
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.recipes import supervised
from jaxdl.runs.config import RunFlags, unflat

pytestmark = pytest.mark.usefixtures("compiled_once")


def config(folder, runs, **changes):
    tiny = {"hidden": (8,), "steps": 6, "batch": 8, "validation": 10, "eval_every": 2, "seeds": 2}
    tiny |= {"run": RunFlags(name="tiny", runs_dir=runs, devices=1, log_every=2)}
    return unflat(mnist.Config, {**tiny, "data_dir": folder, **changes})


def test_a_run_draws_what_it_learnt_reprints_and_predicts(tiny_mnist, tmp_path, capsys):
    settings = config(tiny_mnist, tmp_path)
    result = mnist.main(settings)
    directory = tmp_path / "mnist" / "tiny"
    names = {path.stem for path in directory.glob("*.png")}
    assert names == {"predictions", "confusion", "learning_curve"}
    assert result["train_images"] == 30
    assert len(result["validation"]["accuracy"]["values"]) == 2
    assert mnist.main(settings) == json.loads((directory / "result.json").read_text())

    capsys.readouterr()
    shown = mnist.main(config(tiny_mnist, tmp_path, predict=directory))
    test = image_arrays("mnist", "test", data_dir=tiny_mnist)
    logits = mnist.load(directory)(test.images)
    judged_as(result, logits, test)
    assert shown["predicted"] == [str(i) for i in np.argmax(logits, axis=1)[:10]]
    assert (directory / "predicted.png").exists()
    assert "| true" in capsys.readouterr().out


def judged_as(result, logits, test):
    """What a stored net predicts has the figures of the first seed of its run."""
    assert logits.shape == (12, 10)
    _, metrics = cross_entropy(logits, jnp.asarray(test.labels))
    found = result["test"]
    np.testing.assert_allclose(metrics["accuracy"], found["accuracy"]["values"][0], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], found["loss"]["values"][0], rtol=1e-5)


@pytest.mark.slow
def test_resumed_equals_never_stopped_bit_for_bit(tiny_mnist, tmp_path, monkeypatch):
    """With dropout, images turned and moved, batch norm and a falling rate, within an epoch."""
    monkeypatch.setattr(supervised, "draw", lambda *_: None)
    net = {"net": "cnn", "hidden": (2,), "decay_steps": 6, "seeds": 1}
    result = mnist.main(config(tiny_mnist, tmp_path / "never", **net))
    mnist.main(config(tiny_mnist, tmp_path / "resumed", steps=4, **net))
    mnist.main(config(tiny_mnist, tmp_path / "resumed", **net))
    test = image_arrays("mnist", "test", data_dir=tiny_mnist)
    one, two = (
        mnist.load(tmp_path / name / "mnist/tiny")(test.images) for name in ("never", "resumed")
    )
    judged_as(result, one, test)
    np.testing.assert_array_equal(one, two)
    lines = [
        (tmp_path / name / "mnist/tiny/metrics.jsonl").read_text() for name in ("never", "resumed")
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimiser": "sgd"}, optax.sgd(0.001, momentum=0.9)),
        ({}, optax.adam(0.001)),
        ({"weight_decay": 0.01}, optax.adamw(0.001, weight_decay=0.01)),
        ({"optimiser": "sgd", "clip": 1.0}, optax.chain(optax.clip_by_global_norm(1.0),
                                                        optax.sgd(0.001, momentum=0.9))),
        ({"decay_steps": 2}, optax.adam(optax.cosine_decay_schedule(0.001, 2))),
    ],
)  # fmt: skip
def test_optimisers_are_those_of_optax(changes, expected):
    tx = mnist.optimiser(mnist.Config(**{"decay_steps": 0, **changes}))
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    states = tx.init(params), expected.init(params)
    for i in range(3):
        grads = {"w": jnp.array([3.0, -4.0, i])}
        one, first = tx.update(grads, states[0], params)
        two, second = expected.update(grads, states[1], params)
        states = first, second
        np.testing.assert_allclose(one["w"], two["w"], rtol=1e-6)
        params = optax.apply_updates(params, one)


def test_augmentation_is_for_training_alone():
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (28, 28, 1)), jnp.uint8)
    expected = (np.asarray(image) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(mnist.as_seen(image), expected, rtol=1e-4, atol=1e-5)
    plain = mnist.augmented(mnist.PRESETS["tutorial"], jax.random.key(0), image)
    np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-5)
    moved = mnist.augmented(mnist.PRESETS["mlp"], jax.random.key(0), image)
    assert not np.allclose(moved, expected, atol=0.1)
    hardly = dataclasses.replace(mnist.PRESETS["mlp"], degrees=1e-5, zoom=0.0, pixels=0.0)
    found = mnist.augmented(hardly, jax.random.key(0), image)
    np.testing.assert_allclose(found, expected, atol=1e-2)  # in the same units


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_that_the_net_has_no_output_for_is_named_before_anything_compiles(
    tiny_mnist, tmp_path, monkeypatch, label
):
    """Not: training diverged, a lower learning rate may help."""
    made = image_splits("mnist", validation=10, data_dir=tiny_mnist)
    made["train"].labels[5] = label
    names = tuple(map(str, range(11)))
    made = {name: part._replace(class_names=names) for name, part in made.items()}
    monkeypatch.setattr(mnist, "image_splits", lambda *_, **__: made)
    monkeypatch.setattr(mnist, "initial", None)
    words = f"example 5 has the label {label}, but the 10 classes have the labels 0 to 9"
    with pytest.raises(InputError, match=words):
        mnist.main(config(tiny_mnist, tmp_path))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dropout": 1.0}, "`dropout=1.0`: choose at most"),
        ({"hidden": (8, 0)}, "`hidden=0`: choose at least 1"),
        ({"eval_every": 3}, "`eval_every=3` must be a multiple of `log_every=2`"),
        ({"net": "cnn", "activation": "tanh"}, "`activation=` and `init=` are for `net=mlp`"),
        ({"validation": 40}, "`validation=40` of 40 images: choose 0 to 39"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny_mnist, tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        mnist.main(config(tiny_mnist, tmp_path, **changes))


def test_a_folder_without_a_run_has_nothing_to_predict_with(tmp_path):
    with pytest.raises(InputError):
        mnist.load(tmp_path)
