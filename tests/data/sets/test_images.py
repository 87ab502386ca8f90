import doctest
import inspect
import io
import re
import subprocess
import sys
import time
import zipfile

import jax
import numpy as np
import pytest

from jaxdl.data.prepare.cache import load_arrays, save_arrays
from jaxdl.data.sets import images, splits
from jaxdl.errors import InputError, RunError

HEAVY = ("tensorflow", "tensorflow_datasets", "grain", "PIL", "array_record", "jax")
NAMES = tuple("abcdefghij")


# --- Classes -------------------------------------------------------------------------------------


def test_choose_classes_sorts_by_place_and_keeps_the_order_inside_a_class():
    x = np.arange(8)
    labels = np.array([2, 0, 1, 2, 3, 0, 3, 2])
    found, place = images.choose_classes(x, labels, ["a", "b", "c", "d"], ("d", "c"))
    assert found.tolist() == [4, 6, 0, 3, 7]
    assert place.tolist() == [0, 0, 1, 1, 1]
    assert place.dtype == np.int32


def test_choose_classes_names_a_class_that_the_data_lack():
    with pytest.raises(InputError, match="lack 1 classes of the split, among them z"):
        images.choose_classes(np.zeros(2), np.array([0, 1]), ["a", "b"], ("a", "z"))


def test_character_name_is_that_of_the_folders():
    assert images.character_name("Greek_0") == "Greek/character01"
    assert images.character_name("Malay_(Jawi_-_Arabic)_39") == "Malay_(Jawi_-_Arabic)/character40"


@pytest.mark.parametrize(
    "other",
    [
        {"params/Dense_0/kernel": np.ones((4, 2))},
        {"image": np.full((3, 28, 28, 1), "x")},
        {"image": np.zeros((3, 28, 28, 1))},
        {"image": np.zeros((3, 28, 28), np.uint8)},
        {"image": np.zeros((3, 10, 10, 3), np.uint8)},
        {"image": np.uint8(3)},
        {"label": np.int64(0)},
        {"label.names": np.array("a")},
        {"label.names": np.arange(10)},
    ],
)
def test_cached_arrays_of_another_file_are_told(tmp_path, other):
    whole = {"image": np.zeros((3, 28, 28, 1), np.uint8), "label": np.arange(3)}
    whole["label.names"] = np.array(NAMES)
    path = tmp_path / "arrays" / "mnist" / "3.0.1" / "train.npz"
    save_arrays(path, whole)
    assert len(images.image_arrays("mnist", "train", data_dir=tmp_path).labels) == 3
    save_arrays(path, other if "params/Dense_0/kernel" in other else whole | other)
    with pytest.raises(RunError, match=r"mnist is damaged: .*\. Delete this folder, then prepare"):
        images.image_arrays("mnist", "train", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["JAXDL_DATA", "XDG_CACHE_HOME"])
def test_a_folder_of_the_environment_that_no_system_takes_is_refused(monkeypatch, name):
    monkeypatch.delenv("JAXDL_DATA", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "x" * 5000)
    with pytest.raises(InputError, match=rf"`{name}=/tmp/x+\.\.\.` is too long"):
        images.image_arrays("mnist", "train")


# --- Parts of a set for supervised learning ------------------------------------------------------


@pytest.mark.parametrize("validation", [0, 3])
def test_the_last_training_images_are_held_out(validation, monkeypatch):
    def load(name, split, *, data_dir):
        assert (name, data_dir) == ("mnist", "here")
        count, first = (10, 0) if split == "train" else (4, 100)
        values = np.arange(first, first + count, dtype=np.uint8)
        pixels = np.broadcast_to(values.reshape(count, 1, 1, 1), (count, 28, 28, 1))
        return {"image": pixels, "label": values % 10, "label.names": np.array(NAMES)}

    monkeypatch.setattr(images, "load_arrays", load)
    found = images.image_splits("mnist", validation=validation, data_dir="here")
    left = 10 - validation
    expected = {"train": range(left), "validation": range(left, 10), "test": range(100, 104)}
    assert {name: part.images[:, 0, 0, 0].tolist() for name, part in found.items()} == {
        name: list(numbers) for name, numbers in expected.items()
    }
    for part in found.values():
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 10)
        assert part.class_names == NAMES
    for wrong in (10, -1):
        with pytest.raises(InputError, match=f"`validation={wrong}` of 10 images: choose 0 to 9"):
            images.image_splits("mnist", validation=wrong, data_dir="here")


# --- Cached arrays alone are enough --------------------------------------------------------------


def fake_omniglot(folder):
    """1623 characters with the real names, 3 drawings each, whose pixels all hold the label."""
    published = splits.published("omniglot_vinyals")
    names = sorted(name for part in published.values() for name in part)
    tfds_names = [f"{a}_{int(c.removeprefix('character')) - 1}" for a, c in
                  (name.split("/") for name in names)]  # fmt: skip
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(1623), 3))
    arrays = {
        "image": np.tile((labels % 256).astype(np.uint8)[:, None, None, None], (1, 28, 28, 1)),
        "label": labels,
        "label.names": np.array(tfds_names),
    }
    save_arrays(folder / "arrays" / "omniglot" / "3.0.0" / "area28.npz", arrays)
    return names


def fake_cifar100(folder):
    """100 classes, 5 to a superclass, with the real names; the red of a pixel is the label."""
    fine = sorted(c for part in splits.published("cifar_fs").values() for c in part)
    coarse = sorted(c for part in splits.published("fc100").values() for c in part)
    for split, count in (("train", 5), ("test", 1)):
        labels = np.repeat(np.arange(100), count)[::-1]
        pixels = np.zeros((len(labels), 32, 32, 3), np.uint8)
        pixels[..., 0] = labels[:, None, None]
        pixels[..., 1] = split == "test"
        arrays = {
            "image": pixels,
            "label": labels,
            "coarse_label": labels % 20,
            "label.names": np.array(fine),
            "coarse_label.names": np.array(coarse),
        }
        save_arrays(folder / "arrays" / "cifar100" / "3.0.2" / f"{split}.npz", arrays)
    return fine, coarse


@pytest.mark.parametrize(
    ("kind", "sizes"), [("maml", (1100, 100, 423)), ("vinyals", (1028, 172, 423))]
)
def test_omniglot_splits_are_disjoint_complete_and_rightly_labelled(tmp_path, kind, sizes):
    names, seen = fake_omniglot(tmp_path), []
    for split, size in zip(splits.NAMES, sizes, strict=True):
        data = images.few_shot_arrays("omniglot", split, omniglot_split=kind, data_dir=tmp_path)
        assert data.images.shape == (3 * size, 28, 28, 1)
        np.testing.assert_array_equal(data.labels, np.repeat(np.arange(size), 3))
        assert data.labels.dtype == np.int32
        expected = [names.index(data.class_names[label]) % 256 for label in data.labels]
        np.testing.assert_array_equal(data.images[:, 0, 0, 0], expected)
        assert images.OMNIGLOT_AREA in data.notes
        assert (images.OMNIGLOT_SHUFFLED in data.notes) == (kind == "maml")
        seen += data.class_names
    assert sorted(seen) == names


@pytest.mark.parametrize(("name", "sizes"), [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_cifar_pools_train_and_test_and_separates_classes(tmp_path, name, sizes):
    fine, coarse = fake_cifar100(tmp_path)
    seen, superclasses = [], []
    for split, size in zip(splits.NAMES, sizes, strict=True):
        data = images.few_shot_arrays(name, split, data_dir=tmp_path)
        assert data.images.shape == (6 * size, 32, 32, 3)
        np.testing.assert_array_equal(data.labels, np.repeat(np.arange(size), 6))
        expected = [fine.index(data.class_names[label]) for label in data.labels]
        np.testing.assert_array_equal(data.images[:, 0, 0, 0], expected)
        np.testing.assert_array_equal(data.images[:, 0, 0, 1], np.tile([0] * 5 + [1], size))
        seen += data.class_names
        superclasses.append({coarse[label % 20] for label in expected})
        if name == "fc100":
            assert superclasses[-1] == set(splits.published("fc100")[split])
        assert data.notes == (images.TWINS[name],)
    assert sorted(seen) == fine


@pytest.mark.parametrize(("name", "count"), [("cifar_fs", 15), ("fc100", 3)])
def test_the_note_on_identical_images_adds_up(name, count):
    """`test_real_cifar_from_archive_to_splits` counts them in the images."""
    total, *parts = map(int, re.findall(r"\b\d+\b", images.TWINS[name]))
    assert total == count == sum(parts)


@pytest.mark.realdata
def test_lanczos_on_omniglots_files_is_the_nearest_pixel(shared_data):
    """Pillow ignores the filter on 1-bit images: so runs the code that our note speaks of."""
    pillow = pytest.importorskip("PIL.Image")
    with zipfile.ZipFile(shared_data / "omniglot" / "images_background_small1.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".png")]
        assert len(names) == 2720
        for name in names[::300]:
            drawing = pillow.open(io.BytesIO(archive.read(name)))
            assert (drawing.mode, drawing.size) == ("1", (105, 105))
            filtered, nearest, grey = (
                np.asarray(image.resize((28, 28), resample=how).convert("L"))
                for image, how in (
                    (drawing, pillow.LANCZOS),
                    (drawing, pillow.NEAREST),
                    (drawing.convert("L"), pillow.LANCZOS),
                )
            )
            np.testing.assert_array_equal(filtered, nearest)
            assert not np.array_equal(grey, nearest)  # what Lanczos would be
    assert "Lanczos, which on these 1-bit images is the nearest pixel" in images.OMNIGLOT_AREA


@pytest.mark.parametrize("label", [-1, 100])
def test_labels_without_a_name_are_refused(tmp_path, label):
    fake_cifar100(tmp_path)
    path = tmp_path / "arrays" / "cifar100" / "3.0.2" / "test.npz"
    arrays = load_arrays(path)
    arrays["label"][7] = label
    save_arrays(path, arrays)
    with pytest.raises(InputError, match=f"example 7 has the label {label}, .* 100 classes"):
        images.image_arrays("cifar100", "test", data_dir=tmp_path)
    with pytest.raises(InputError, match=f"has the label {label}, .* 100 classes"):
        images.few_shot_arrays("cifar_fs", "test", data_dir=tmp_path)


def test_supervised_arrays_keep_their_order(tmp_path):
    fine, _ = fake_cifar100(tmp_path)
    data = images.image_arrays("cifar100", "train", data_dir=tmp_path)
    assert data.class_names == tuple(fine)
    np.testing.assert_array_equal(data.labels, np.repeat(np.arange(100), 5)[::-1])
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], data.labels)
    assert data.mean.shape == data.std.shape == (3,)


def in_the_example_of(function, name):
    """What the example in a docstring defines under this name."""
    defined = {}
    for part in doctest.DocTestParser().get_examples(inspect.getdoc(function)):
        if part.exc_msg is None:
            exec(part.source, defined)
    return defined[name]


def test_the_examples_work_where_the_data_are(tmp_path, key):
    """Doctests see no prepared data: there the examples end in the sentence that says so."""
    fake_cifar100(tmp_path)
    batch = jax.jit(in_the_example_of(images.image_arrays, "batches")(tmp_path))(key, 0)
    assert batch.x.shape == (128, 32, 32, 3)
    mean, std = (each[0] for each in images.STATISTICS["cifar100"])
    np.testing.assert_allclose(batch.x[:, 0, 0, 0], (batch.y / 255 - mean) / std, rtol=1e-5)
    episode = jax.jit(in_the_example_of(images.few_shot_arrays, "episodes")(tmp_path))(key)
    assert [len(part.y) for part in episode] == [5, 25]


def test_loading_cached_arrays_imports_nothing_heavy_and_is_fast(tmp_path):
    fake_omniglot(tmp_path)
    fake_cifar100(tmp_path)
    script = (
        "import sys\n"
        "from jaxdl.data.sets.images import few_shot_arrays, image_arrays\n"
        "few_shot_arrays('omniglot', 'test')\n"
        "few_shot_arrays('fc100', 'test')\n"
        "image_arrays('cifar100', 'train')\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"JAXDL_DATA": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - start < 10  # a second or less, but the machine may be busy


# --- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda d: images.image_arrays("mnist", "train", data_dir=d), "jaxdl prepare mnist"),
        (lambda d: images.few_shot_arrays("fc100", "test", data_dir=d), "jaxdl prepare cifar100"),
        (lambda d: images.few_shot_arrays("omniglot", "test", data_dir=d), "images_evaluation.zip"),
        (lambda d: images.load_arrays("imagenette/320px", "train", data_dir=d), "tfds build"),
        (lambda d: images.load_arrays("cifar_fs", "train", data_dir=d), "jaxdl prepare cifar100"),
        (lambda d: images.load_arrays("digits", "train", data_dir=d), "digits.digits_few_shot"),
        (
            lambda d: images.load_arrays("numbers", "train", data_dir=d),
            "two_digits.numbers_few_shot",
        ),
        (lambda d: images.load_arrays("mnist:9.9.9", "train", data_dir=d), "jaxdl prepare mnist"),
        (lambda d: images.few_shot_arrays("omniglot", "val", data_dir=d), "Choose train"),
        (lambda d: images.few_shot_arrays("mini", "train", data_dir=d), "Choose omniglot"),
        (lambda d: images.image_arrays("svhn", "train", data_dir=d), "Choose train or test of"),
        (lambda d: images.image_arrays("mnist", "validation", data_dir=d), "Choose train or test"),
    ],
)
def test_what_is_missing_or_unknown_is_said_in_one_sentence(tmp_path, call, sentence):
    start = time.monotonic()
    with pytest.raises(InputError, match=sentence) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"omniglot_split": "lake"}, "Choose maml, vinyals or alphabets"),
        ({"omniglot_resize": "lanczos"}, "Choose area or nearest"),
        ({"omniglot_split": "vinyals", "omniglot_seed": 2}, "'vinyals' is a list. Leave one"),
    ],
)
def test_an_unknown_form_of_omniglot_is_refused(tmp_path, options, sentence):
    fake_omniglot(tmp_path)
    with pytest.raises(InputError, match=sentence):
        images.few_shot_arrays("omniglot", "test", **options, data_dir=tmp_path)


def test_another_seed_divides_the_characters_of_omniglot_otherwise(tmp_path):
    names = fake_omniglot(tmp_path)
    found = {
        seed: images.few_shot_arrays("omniglot", "test", omniglot_seed=seed, data_dir=tmp_path)
        for seed in (1, 2)
    }
    for seed, data in found.items():
        assert data.class_names == splits.shuffled(names, seed=seed)["test"]
    assert len(set(found[1].class_names) & set(found[2].class_names)) < 200
    assert [note for note in found[2].notes if "drawn by seed 2" in note]
    assert not [note for note in found[1].notes if "drawn by seed" in note]


def test_omniglots_own_alphabets_leave_none_for_validation(tmp_path):
    fake_omniglot(tmp_path)
    options = {"omniglot_split": "alphabets", "data_dir": tmp_path}
    train, test = (
        images.few_shot_arrays("omniglot", part, **options) for part in ("train", "test")
    )
    alphabets = [{name.split("/")[0] for name in part.class_names} for part in (train, test)]
    assert (len(train.class_names), len(test.class_names)) == (964, 659)
    assert [len(part) for part in alphabets] == [30, 20]
    assert not alphabets[0] & alphabets[1]
    with pytest.raises(InputError, match="'alphabets' has no validation characters"):
        images.few_shot_arrays("omniglot", "validation", **options)


def test_the_data_folder_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        images.image_arrays("mnist", "train", data_dir=tmp_path / "file")


def test_a_damaged_cache_with_nothing_prepared_is_named(tmp_path):
    fake_omniglot(tmp_path)
    path = tmp_path / "arrays" / "omniglot" / "3.0.0" / "area28.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RunError, match=r"area28\.npz cannot be read"):
        images.few_shot_arrays("omniglot", "test", data_dir=tmp_path)
