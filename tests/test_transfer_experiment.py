"""The experiment on transfer learning: data, what moves when, its words, and that it resumes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import transfer
from experiments.reports import transfer as words
from experiments.transfer import Config
from jaxdl.data.sets.images import ImageData
from jaxdl.data.subsets import cells
from jaxdl.errors import InputError
from jaxdl.models.mlp import mlp
from jaxdl.optim.transfer import NEVER
from jaxdl.recipes import problems
from jaxdl.recipes.few_labels import classes_of, fresh, problem_of
from jaxdl.recipes.problems import other_classes
from jaxdl.report import by_count
from jaxdl.runs.config import RunFlags, unflat
from jaxdl.runs.run import Run
from jaxdl.runs.stored import load_best
from jaxdl.runs.weights import load_weights
from jaxdl.train.streams import run_keys

pytestmark = pytest.mark.usefixtures("compiled_once")


LAYERS, NET = transfer.LAYERS, transfer.net
"""Those of the real net, which the tests replace by a small one."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration whose net is small, with some changes; all in one folder of runs."""
    folder = tmp_path_factory.mktemp("runs")

    def config(name="whole", **changes):
        small = {
            "data": "digits",
            "counts": (1, 0),
            "steps": 8,
            "batch": 10,
            "rates": (0.003, 0.03),
            "stage": 4,
            "source_steps": 6,
            "meta_steps": 4,
            "tasks": 2,
            "eval_every": 4,
            "seeds": 2,
            "run": RunFlags(name=name, runs_dir=folder, devices=1, log_every=2),
        }
        return unflat(Config, small | changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "net", lambda classes: mlp((6, classes)))
        patch.setattr(transfer, "LAYERS", ("Dense_1", "Dense_0"))
        yield config


@pytest.fixture(scope="module")
def whole(tiny, compiled_once):
    """The result of a run that was never stopped, and its directory."""
    result = transfer.main(tiny())
    return result, Path(result["run"]["directory"])


@pytest.mark.slow
def test_the_run_ends_in_tables_and_a_picture(whole):
    result, folder = whole
    for found in result["methods"].values():
        assert np.shape(found["test"]) == np.shape(found["steps"]) == (2, 2)
    said = words.report(result)
    assert all(title in said for title in words.METHODS.values())
    assert "| 100 (all)" in said
    assert "labels per class; minus from scratch" in said
    assert "± over seeds by Student's t" in said
    assert (folder / "accuracy.png").exists()


@pytest.mark.slow
def test_the_trunk_stays_in_the_probe_and_only_there(whole, tiny):
    problem, _ = other_classes("digits", None)
    runs = cells(run_keys(0, 2), (1, 0), tiny().rates)
    start = fresh(problem, transfer.net(5), run_keys(0, 2))
    like = jax.tree.map(lambda leaf: leaf[runs.seeds], start)
    trunk = {
        name: np.asarray(load_best(whole[1] / name, like)[0]["Dense_0"]["kernel"])
        for name in words.METHODS
    }
    source = load_weights(whole[1] / "source").arrays["params/Dense_0/kernel"]
    assert (trunk["probe"] == np.tile(source, (4, 1, 1))).all()
    assert not (trunk["full"] == trunk["probe"]).all(axis=(1, 2)).any()
    assert not (trunk["gradual"] == trunk["full"]).all(axis=(1, 2)).any()


@pytest.mark.slow
def test_resumed_equals_never_stopped_bit_for_bit(whole, tiny, monkeypatch):
    monkeypatch.setattr(Run, "picture", lambda *_, **__: None)
    transfer.main(tiny("stopped", steps=4))
    resumed = transfer.main(tiny("stopped"))
    assert resumed["methods"] == whole[0]["methods"]
    for name in words.METHODS:
        one, two = (
            (whole[1].parent / run / name / "metrics.jsonl").read_text()
            for run in ("whole", "stopped")
        )
        assert one == two


def published(classes, each, split):
    """Images that are all different and say, pixel by pixel: class, split, and which they are."""
    labels = np.tile(np.arange(classes), each).astype(np.int32)
    number = np.arange(len(labels))
    pixels = np.stack([labels, 0 * labels + split, number // 256, number % 256], axis=1)
    images = pixels.astype(np.uint8).reshape(-1, 2, 2, 1)
    return ImageData(images, labels, (), np.zeros(1), np.ones(1))


@pytest.mark.parametrize(
    ("data", "classes", "sizes", "class_of", "target_split"),
    [
        ("mnist", (5, 5), (15, 200, 20), lambda label: label + 5, None),
        ("omniglot", (12, 2), (15, 2, 3), lambda label: 6 * label, 1),
        ("cifar100", (12, 12), (400, 50, 150), lambda label: label, 1),
    ],
)
def test_what_is_trained_chosen_and_judged_on_does_not_meet(
    data, classes, sizes, class_of, target_split, monkeypatch
):
    each = {"mnist": (10, 215, 20), "omniglot": (12, 20, 20), "cifar100": (12, 600, 600)}[data]

    def made(name, part, **_):
        return published(each[0], each[1 + (part == "test")], part == "test")

    monkeypatch.setattr(problems, "image_arrays", made)
    monkeypatch.setattr(problems, "few_shot_arrays", made)
    problem, source_test = other_classes(data, None)
    judged = problem.validation, problem.test
    assert (classes_of(problem), classes[0]) == (classes[1], len(set(problem.source[1].tolist())))
    assert problem.train.sizes.tolist() == [sizes[0]] * classes[1]
    assert [np.bincount(labels).tolist() for _, labels in judged] == [
        [size] * classes[1] for size in sizes[1:]
    ]
    for images, labels in judged:
        told = np.asarray(images).reshape(len(labels), 4)
        assert (told[:, 0] == class_of(np.asarray(labels))).all()
        assert target_split is None or (told[:, 1] == target_split).all()
    for images, labels in (problem.source, source_test):
        assert (images.reshape(len(labels), 4)[:, 0] == labels).all()
        assert target_split is None or (images.reshape(len(labels), 4)[:, 1] == 0).all()
    groups = [problem.train.x, *(images for images, _ in (*judged, problem.source, source_test))]
    found = [{image.tobytes() for image in np.asarray(images)} for images in groups]
    assert len(set().union(*found)) == sum(len(images) for images in groups)


def test_every_drawing_of_scikit_learn_has_one_place():
    problem, source_test = other_classes("digits", None)
    images = [problem.train.x, problem.validation[0], problem.test[0], problem.source[0]]
    found = [{image.tobytes() for image in np.asarray(part)} for part in (*images, source_test[0])]
    assert sum(map(len, found)) == len(set().union(*found)) == 1797
    assert problem.train.sizes.tolist() == [100] * 5
    assert np.bincount(source_test[1]).tolist() == [30] * 5


@pytest.mark.parametrize(
    ("method", "starts"),
    [
        ("scratch", [0] * 5),
        ("full", [0] * 5),
        ("maml", [0] * 5),
        ("probe", [0, NEVER, NEVER, NEVER, NEVER]),
        ("gradual", [0, 7, 14, 21, 28]),
    ],
)
def test_when_layers_begin_to_move(method, starts, monkeypatch):
    monkeypatch.setattr(transfer, "LAYERS", LAYERS)
    assert transfer.starts_of(method, 7).tolist() == starts


def test_each_method_has_its_start_and_moves_what_it_may(tiny, monkeypatch):
    """The experiment as it is, but for the trainings."""
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2
    problem = problem_of(images, labels, (images, labels), (2, 1))
    own = fresh(problem, transfer.net(2), run_keys(0, 2))
    of_source, of_maml = (jax.tree.map(lambda leaf: leaf + add, own) for add in (1, 2))  # noqa: B023
    told = {}

    def learn(run, problem, model, start, training, *, counts, rates, optimiser):
        told[run.name] = start, optimiser(0.1)
        return {"test": [[0.5, 0.5]] * 2, "validation": [[0.5, 0.5]] * 2}

    monkeypatch.setattr(transfer, "other_classes", lambda *_: (problem, (images, labels)))
    monkeypatch.setattr(transfer.few_labels, "pretrained", lambda *_, **__: of_source)
    monkeypatch.setattr(transfer.few_labels, "meta_trained", lambda *_, **__: of_maml)
    monkeypatch.setattr(transfer.few_labels, "learn", learn)
    transfer.experiment(tiny(stage=7), Parts())

    head, trunk = transfer.LAYERS
    transferred = {head: own[head], trunk: of_source[trunk]}
    assert tuple(told) == tuple(words.METHODS)
    for name, (start, _) in told.items():
        expected = {"scratch": own, "maml": of_maml}.get(name, transferred)
        jax.tree.map(np.testing.assert_array_equal, start, expected)
    begins = {"probe": {head: 0, trunk: NEVER}, "gradual": {head: 0, trunk: 7}}
    for name, (start, tx) in told.items():
        state = tx.init(start).inner_states
        found = {layer: int(each.inner_state.start) for layer, each in state.items()}
        assert found == begins.get(name, {head: 0, trunk: 0})


@dataclasses.dataclass
class Parts:
    """A run, and its parts, in which nothing is trained or written."""

    name: str = ""

    def part(self, name, steps=None):
        return Parts(name)

    def picture(self, *_, **__):
        pass

    def finish(self, result):
        return result


def test_the_layers_are_those_of_the_net():
    like = jax.eval_shape(NET(5).init, jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    assert sorted(LAYERS) == sorted(like)
    assert like[LAYERS[0]]["bias"].shape == (5,)


def test_a_difference_is_paired_by_seed():
    """Seeds that differ alike for all methods leave no interval; a single seed has none."""

    def made_up(seeds, **means):
        around = np.linspace(-0.01, 0.01, seeds) if seeds > 1 else np.zeros(1)
        methods = {
            name: {"test": [(mean + around).tolist() for mean in of_counts]}
            for name, of_counts in means.items()
        }
        return {"methods": methods, "counts": (1, 0), "examples": [1.0, 90.0]}

    titles = {"scratch": "from scratch", "full": "full fine-tuning"}
    result = made_up(3, scratch=(0.4, 0.9), full=(0.55, 0.9))
    lines = by_count.differences(result, titles, "scratch").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["labels per class; minus from scratch", "full fine-tuning"]
    assert cells[2:] == [["1", "15.0 ± 0.0"], ["90 (all)", "0.0 ± 0.0"]]
    alone = by_count.differences(made_up(1, scratch=(0.4, 0.9), full=(0.5, 0.9)), titles, "full")
    assert "-10.0" in alone
    assert "±" not in alone


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"counts": (5, 1)}, "`counts=5 1`"),
        ({"rates": (0.1, -1.0)}, "`rates=-1.0`: choose a number above 0"),
        ({"rates": ()}, "`rates=`: give learning rates"),
        ({"stage": 0}, "`stage=0`: choose at least 1"),
        ({"eval_every": 3}, "`eval_every=3` must be a multiple of `log_every=2`"),
        ({"inner_lr": 0.0}, "`inner_lr=0.0`"),
        ({"counts": (1, 101)}, "only 100 training examples"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, wrong, says):
    with pytest.raises(InputError, match=says):
        transfer.main(tiny("wrong", **wrong))
