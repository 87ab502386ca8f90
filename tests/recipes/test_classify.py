"""Pictures are classified as the learner itself does, on arrays made by hand."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdl.errors import InputError
from jaxdl.recipes import command
from jaxdl.recipes.classify import classify
from jaxdl.recipes.loaded import load_run
from jaxdl.types import Batch
from tests import stored_run

RNG = np.random.default_rng(0)
SIZE = 16


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def folders(tmp_path):
    """Two classes of 2 and 3 examples, and 5 pictures to classify, all of the right size."""
    examples = {
        name: [write(tmp_path / "support" / name / f"{i}.png", square()) for i in range(count)]
        for name, count in (("cat", 2), ("dog", 3))
    }
    asked = [write(tmp_path / "asked" / f"{i}.png", square()) for i in range(5)]
    return tmp_path, examples, asked


def square(channels=3):
    return RNG.integers(0, 255, (SIZE, SIZE, channels)[: 3 if channels > 1 else 2]).astype(np.uint8)


def a_run(place, **fields):
    folder = place / "run"
    folder.mkdir()
    fields = {"data": "folder", "size": SIZE, "ways": 2, "norm": "support", **fields}
    stored_run.of_few_shot(folder, **fields)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_probabilities_are_those_of_the_learner(norm, folders):
    place, examples, asked = folders
    run = a_run(place, norm=norm)
    found = classify(run, place / "support", place / "asked", seed=1)
    learner, params, config = load_run(run, 1)
    support = jnp.asarray([*examples["cat"], *examples["dog"]]) / 255
    batch = Batch(support, jnp.array([0, 0, 1, 1, 1]))
    adapted = learner.adapt(jax.random.key(0), params, batch, config["test_inner_steps"])
    expected = jax.nn.softmax(learner.predict(adapted, jnp.asarray(asked) / 255))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.class_names == ("cat", "dog")
    assert found.files == tuple(f"{i}.png" for i in range(5))
    assert found.together is (norm == "batch")


def test_one_picture_at_a_time(folders):
    place, _, asked = folders
    run = a_run(place)
    together = classify(run, place / "support", place / "asked").probabilities
    write(place / "alone" / "x.png", asked[3])
    alone = classify(run, place / "support", place / "alone").probabilities
    np.testing.assert_allclose(alone[0], together[3], atol=1e-5)
    single = classify(run, place / "support", place / "alone" / "x.png")
    assert single.files == ("x.png",)
    np.testing.assert_array_equal(single.probabilities, alone)
    assert single.seen == 0
    known = next((place / "support").rglob("*.png"))
    assert classify(run, place / "support", known).seen == 1


def test_a_single_picture_is_refused_by_the_norm_of_the_batch(folders):
    place, _, asked = folders
    run = a_run(place, norm="batch")
    write(place / "alone" / "x.png", asked[3])
    with pytest.raises(InputError, match="--norm support"):
        classify(run, place / "support", place / "alone")


def test_the_command_writes_a_table_and_a_contact_sheet(folders, capsys):
    place, _, _ = folders
    run, out = a_run(place), place / "out.csv"
    # Grey, of another size, and turned by its EXIF data, beside the others.
    odd = Image.fromarray(RNG.integers(0, 255, (30, 50)).astype(np.uint8))
    exif = odd.getexif()
    exif[0x0112] = 6
    odd.save(place / "asked" / "odd.jpg", exif=exif)
    flags = ["--support", str(place / "support"), "--pictures", str(place / "asked")]
    assert command.main(["classify", str(run), *flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"table {out}: 6 pictures, 2 classes" in said
    found = classify(run, place / "support", place / "asked")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["file"] for row in rows] == list(found.files)
    best = found.probabilities.argmax(axis=1)
    assert [row["class"] for row in rows] == [found.class_names[i] for i in best]
    numbers = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(numbers, found.probabilities.max(axis=1), atol=1e-4)
    with Image.open(place / "out.png") as sheet:
        assert sheet.size[0] > 500


def test_ink_on_paper_becomes_bright_strokes_on_black(tmp_path):
    """For runs of omniglot: a black picture is all ink, a white one has none."""
    run = a_run(tmp_path, data="omniglot", norm="example")
    for name, level in (("ink", 0), ("paper", 255)):
        for i in range(2):
            write(tmp_path / "support" / name / f"{i}.png", np.full((28, 28), level, np.uint8))
    write(tmp_path / "asked" / "a.png", np.full((90, 90, 3), 255, np.uint8))
    found = classify(run, tmp_path / "support", tmp_path / "asked")
    assert found.images.shape == (1, 28, 28, 1)
    assert found.images.max() == 0


def test_other_numbers_of_classes(folders):
    """ProtoNet takes any; MAML's head has one output for each class of training."""
    place, _, _ = folders
    for name in ("bird", "fish"):
        write(place / "support" / name / "0.png", square())
    with pytest.raises(InputError, match=r"was trained for tasks of 2 classes, .* Give 2 classes"):
        classify(a_run(place), place / "support", place / "asked")
    other = place / "other"
    other.mkdir()
    found = classify(a_run(other, learner="protonet"), place / "support", place / "asked")
    assert found.class_names == ("bird", "cat", "dog", "fish")
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "both --support and --pictures are needed. Give a folder of class folders"),
        (["--support", "none", "--pictures", "none"], "there is no folder none"),
        (["--support", "{s}", "--pictures", "{s}", "--out", "a.txt"], "is a .csv file"),
    ],
)
def test_what_is_refused(flags, words, folders, capsys):
    place, _, _ = folders
    flags = [flag.format(s=place / "support") for flag in flags]
    assert command.main(["classify", str(a_run(place)), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
