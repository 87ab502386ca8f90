"""A classifier's figures, pictures, report and predictions, on a net that one line can follow."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxdl.data.sets.images import ImageData
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.recipes import supervised
from jaxdl.train.evaluation import measure
from jaxdl.types import StatefulModel, TrainState

NAMES = ("cat", "dog", "frog")


def apply(params, stats, x, *, key=None, weight=None, mode):
    """Logits are the first row of the image, times a weight, plus the statistics."""
    assert (key, mode) == (None, "eval")
    return params["w"] * x[:, 0, :, 0] + stats["shift"][None], stats


MODEL = StatefulModel(None, apply)
STATE = TrainState(
    jnp.int32(7),
    {"w": jnp.array([1.0, -1.0])},
    (),
    {"shift": jnp.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])},
)


def seen(image):
    return image / 255


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 2, 3, 1), np.uint8)
    labels = rng.integers(0, 3, count, dtype=np.int32)
    return ImageData(pixels, labels, NAMES, np.zeros(1), np.ones(1))


def logits_of(data, seed):
    shift = [[0, 0, 0.5], [0, 0, 0]][seed]
    return [1, -1][seed] * (data.images[:, 0, :, 0] / 255) + shift


def figures_of(data):
    """Accuracy and loss of both seeds, in NumPy."""
    found = {"accuracy": [], "loss": []}
    for seed in (0, 1):
        logits, at = logits_of(data, seed), np.arange(len(data.labels))
        found["accuracy"].append(np.mean(logits.argmax(1) == data.labels))
        found["loss"].append(np.mean(np.log(np.exp(logits).sum(1)) - logits[at, data.labels]))
    return found


@pytest.fixture(scope="module")
def judge():
    return measure(MODEL, cross_entropy, seen)


def test_every_part_with_images_is_judged_for_every_seed(judge):
    data = {"train": images(9), "validation": images(0), "test": images(11, seed=1)}
    found = supervised.scores(judge, STATE, data)
    assert list(found) == ["train", "test"]
    for name, part in found.items():
        for metric, values in figures_of(data[name]).items():
            np.testing.assert_allclose(part[metric]["values"], values, rtol=1e-5)
            np.testing.assert_allclose(part[metric]["mean"], np.mean(values), rtol=1e-5)


def test_a_validation_finds_what_the_end_finds_and_none_where_nothing_is_held_out(judge):
    found = supervised.validation(judge, images(9))(STATE)
    for metric, values in figures_of(images(9)).items():
        np.testing.assert_allclose(found[metric], values, rtol=1e-5)
    assert supervised.validation(judge, images(0)) is None


def test_the_predictor_is_the_net_of_the_first_seed():
    data = images(9)
    found = supervised.predictor(MODEL, seen, STATE)(data.images)
    np.testing.assert_allclose(found, logits_of(data, 0), rtol=1e-5)


class Run:
    """Keeps the figures in place of files."""

    steps = 6

    def __init__(self, validation):
        self.lines = {"train": np.array([2, 4, 6]), "validation": np.array([4, 6][:validation])}
        self.figures = {}

    def metrics(self, split):
        step = self.lines[split]
        if len(step) == 0:
            return {}
        values = np.stack([step, step + 2], axis=1) / 10
        return {"step": step, "loss": values, "accuracy": values}

    def picture(self, name, draw, *, size):
        self.figures[name] = Figure(figsize=size)
        draw(self.figures[name])


@pytest.mark.parametrize("validation", [0, 2])
def test_pictures_say_what_the_arrays_say(validation):
    run, test = Run(validation), images(12)
    logits = logits_of(test, 0)
    figures = {name: {"values": values} for name, values in figures_of(test).items()}
    supervised.draw(run, test, logits, figures)
    right = np.mean(logits.argmax(1) == test.labels)
    assert run.figures["confusion"].axes[0].get_title() == f"accuracy {right:.2%}"
    first = run.figures["predictions"].subfigs[0]
    assert first.get_suptitle().endswith(f"{1 - right:.2%})")
    loss, error = run.figures["learning_curve"].axes
    names = ["train (batches as trained on)", "validation", "test"]
    assert [line.get_label() for line in loss.lines] == names[: 1 + bool(validation)] + names[2:]
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[2, 0.3], [4, 0.5], [6, 0.7]])
    np.testing.assert_allclose(
        loss.lines[-1].get_xydata(), [[6, np.mean(figures["loss"]["values"])]]
    )
    accuracy = np.mean(figures["accuracy"]["values"])
    np.testing.assert_allclose(error.lines[-1].get_xydata(), [[6, 100 - 100 * accuracy]])


def test_predictions_are_shown_by_name_and_drawn(tmp_path, capsys):
    test = images(12)
    shown = supervised.show(tmp_path, supervised.predictor(MODEL, seen, STATE), test)
    logits = logits_of(test, 0)[:10]
    assert shown["true"] == [NAMES[i] for i in test.labels[:10]]
    assert shown["predicted"] == [NAMES[i] for i in logits.argmax(1)]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shown["confidence"], share.max(1), atol=1e-4)
    assert all(len(str(each)) <= len("0.1234") for each in shown["confidence"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].replace("|", " ").split() == ["true", *shown["true"]]
    assert (tmp_path / "predicted.png").stat().st_size > 10_000


def test_the_report_has_a_row_for_every_part_and_says_what_made_it():
    def summaries(mean, ci95, *values):
        return {
            "accuracy": {"mean": mean, "ci95": ci95, "values": list(values)},
            "loss": {"mean": 0.12345},
        }

    result = {
        "train": summaries(0.99, 0.001, 0.989, 0.991),
        "test": summaries(0.975, None, 0.975),
        "train_images": 50,
        "config": {"batch": 25, "seed": 3, "seeds": 2},
        "run": {
            "steps": 1500,
            "wall_seconds": 61.4,
            "compile_seconds": 2.2,
            "device": "1 x cpu",
            "machine": "a box",
            "directory": "runs/a",
        },
    }
    expected = """\
| a net | accuracy in %, ± 95 % over seeds |     by seed | cross-entropy |
| :---- | -------------------------------: | ----------: | ------------: |
| train |                     99.00 ± 0.10 | 98.90 99.10 |        0.1235 |
| test  |                            97.50 |       97.50 |        0.1235 |
1,500 steps of 25, 750.0 epochs of 50 images; seeds 3 to 4, ± over seeds by Student's t
a note
61 s, 2 of them compiling, on 1 x cpu, a box; runs/a"""
    assert supervised.report("a net", result, "a note") == expected
    result["config"]["decay_steps"] = 1500
    assert supervised.report("a net", result, "a note") == expected
    result["config"]["decay_steps"] = 2000
    early = "a note\nstopped before the learning rate had fallen (--decay-steps 2000)"
    assert supervised.report("a net", result, "a note") == expected.replace("a note", early)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_without_a_name_are_refused_before_anything_is_compiled(label):
    data = images(9)
    data.labels[4] = label

    def judge(*_):
        raise AssertionError("judged")

    words = f"example 4 has the label {label}, but the 3 classes have the labels 0 to 2"
    with pytest.raises(InputError, match=words):
        supervised.validation(judge, data)
    with pytest.raises(InputError, match=words):
        supervised.scores(judge, STATE, {"test": data})
