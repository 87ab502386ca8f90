import gzip
import struct
import zipfile

import numpy as np
import pytest

from jaxdl.data.prepare import archives
from jaxdl.data.prepare.sources import MNIST, OMNIGLOT, check_content
from jaxdl.errors import RunError
from tests.data.prepare import publishers


def local(source, folder):
    return {file.name: folder / file.name for file in source.files}


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
def test_idx_array_is_what_numpy_wrote(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a.gz").write_bytes(gzip.compress(publishers.idx(array)))
    np.testing.assert_array_equal(archives.idx_array(tmp_path / "a.gz"), array)


def test_mnist_pairs_each_image_with_its_label(tmp_path):
    source, arrays = publishers.mnist(tmp_path)
    for split, part in (("train", "train"), ("test", "t10k")):
        records = list(source.records(local(source, tmp_path), split))
        images = np.stack([record["image"] for _, record in records])
        np.testing.assert_array_equal(images[..., 0], arrays[f"{part}-images-idx3-ubyte.gz"])
        labels = [record["label"] for _, record in records]
        assert labels == list(arrays[f"{part}-labels-idx1-ubyte.gz"])
        assert [key for key, _ in records] == list(range(len(records)))


@pytest.mark.parametrize("fine", [False, True])
def test_cifar_puts_channels_last_and_goes_on_counting_across_batches(tmp_path, fine):
    source, rows = publishers.cifar(tmp_path, fine=fine)
    records = list(source.records(local(source, tmp_path), "train"))
    expected = np.concatenate([part for name, part in rows.items() if "test" not in name])
    assert [key for key, _ in records] == list(range(len(expected)))
    assert records[7][1]["id"] == "train_00007"
    width = 2 if fine else 1
    for (_, record), row in zip(records, expected, strict=True):
        assert record["label"] == row[width - 1]
        for y, x, c in ((0, 0, 0), (0, 31, 1), (31, 0, 2), (13, 17, 1)):
            assert record["image"][y, x, c] == row[width + c * 1024 + y * 32 + x]
    names = ["class0", "class1", "class2"]
    expected_names = {"coarse_label": names, "label": names} if fine else {"label": names}
    assert source.names(local(source, tmp_path)) == expected_names


def test_cifar100_reads_the_superclass_before_the_class(tmp_path):
    layout = archives.CIFAR100
    row = bytes([7, 42]) + bytes(3072)
    members = {f"{layout.folder}/test.bin": row}
    publishers.tar(tmp_path / layout.archive, members)
    files = {layout.archive: tmp_path / layout.archive}
    [(_, record)] = archives.cifar_records(layout, files, "test")
    assert (record["coarse_label"], record["label"]) == (7, 42)


def test_omniglot_keeps_the_png_and_counts_characters_from_zero(tmp_path):
    source, ink = publishers.omniglot(tmp_path)
    files = local(source, tmp_path)
    records = dict(source.records(files, "train"))
    assert len(records) == 6
    record = records["Greek_1_0003_02.png"]
    assert record["image"] == publishers.png(ink["Greek/character02/0003_02.png"])
    assert (record["alphabet"], record["alphabet_char_id"], record["label"]) == ("Greek", 1, 2)
    assert source.names(files) == {
        "alphabet": ["Greek", "N_Ko", "Tengwar"],
        "label": ["N_Ko_0", "Greek_0", "Greek_1", "Tengwar_0", "Tengwar_1"],
    }


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def rewrite_idx(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


DAMAGE = {
    "cut gzip": (publishers.mnist, "train-images-idx3-ubyte.gz", cut),
    "no gzip": (publishers.mnist, "t10k-labels-idx1-ubyte.gz", lambda p: p.write_bytes(b"<html>")),
    "empty": (publishers.mnist, "t10k-labels-idx1-ubyte.gz", lambda p: p.write_bytes(b"")),
    "idx of floats": (
        publishers.mnist,
        "train-images-idx3-ubyte.gz",
        lambda p: rewrite_idx(p, lambda c: c[:2] + b"\x0d" + c[3:]),
    ),
    "idx too short": (
        publishers.mnist,
        "train-images-idx3-ubyte.gz",
        lambda p: rewrite_idx(p, lambda c: c[:-1]),
    ),
    "fewer labels than images": (
        publishers.mnist,
        "train-labels-idx1-ubyte.gz",
        lambda p: p.write_bytes(gzip.compress(publishers.idx(np.zeros(5, np.uint8)))),
    ),
    "cut tar": (publishers.cifar, "cifar-10-binary.tar.gz", cut),
    "no tar": (publishers.cifar, "cifar-10-binary.tar.gz", lambda p: p.write_bytes(b"x" * 2000)),
    "tar without its members": (
        publishers.cifar,
        "cifar-10-binary.tar.gz",
        lambda p: publishers.tar(p, {"cifar-10-batches-bin/batches.meta.txt": b"a\nb\nc\n"}),
    ),
    "cut zip": (publishers.omniglot, "images_background.zip", cut),
    "no zip": (publishers.omniglot, "images_evaluation.zip", lambda p: p.write_bytes(b"PK")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_archive_is_named_in_one_sentence(tmp_path, damage):
    make, name, spoil = DAMAGE[damage]
    source, _ = make(tmp_path)
    spoil(tmp_path / name)
    with pytest.raises(RunError, match=r"Fetch (it|them) again") as caught:
        check_content(source, local(source, tmp_path))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cifar_batch_of_broken_records_is_refused(tmp_path):
    source, rows = publishers.cifar(tmp_path)
    members = {name: part.tobytes() for name, part in rows.items()}
    members["test_batch.bin"] = members["test_batch.bin"][:-1]
    members["batches.meta.txt"] = b"class0\nclass1\nclass2\n"
    archive = tmp_path / "cifar-10-binary.tar.gz"
    publishers.tar(archive, {f"cifar-10-batches-bin/{n}": c for n, c in members.items()})
    with pytest.raises(RunError, match="Fetch it again"):
        check_content(source, local(source, tmp_path))


def test_omniglot_refuses_strange_members_and_other_sizes(tmp_path):
    source, _ = publishers.omniglot(tmp_path / "small", side=28)
    with pytest.raises(RunError, match="no PNG of 105 x 105"):
        check_content(source, local(source, tmp_path / "small"))
    source, _ = publishers.omniglot(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "a") as file:
        file.writestr("images_background/readme.txt", b"hello")
    with pytest.raises(RunError, match=r"unexpected member images_background/readme\.txt"):
        check_content(source, local(source, tmp_path))


def test_omniglot_refuses_two_names_for_one_character(tmp_path):
    source, ink = publishers.omniglot(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background_small1.zip", "a") as file:
        strokes = publishers.png(next(iter(ink.values())))
        file.writestr("images_background_small1/Latin/character09/0002_09.png", strokes)
    with pytest.raises(RunError, match="Latin_8, not Greek_0"):
        check_content(source, local(source, tmp_path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"splits": {"train": 13, "test": 6}}, "has 13 examples, but these files hold 12"),
        ({"per_class": {"train": 3, "test": 2}}, "has 4 examples in these files; expected 3"),
        ({"labels": {"label": 4}}, "has 4 classes of label, but these files name 3"),
    ],
)
def test_content_that_does_not_count_up_is_refused(tmp_path, change, sentence):
    source, _ = publishers.cifar(tmp_path)
    check_content(source, local(source, tmp_path))
    with pytest.raises(RunError, match=sentence):
        check_content(source._replace(**change), local(source, tmp_path))


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    source, _ = publishers.mnist(tmp_path)
    name = "t10k-labels-idx1-ubyte.gz"
    rewrite_idx(tmp_path / name, lambda content: content[:-1] + struct.pack("B", 10))
    with pytest.raises(RunError, match="class 10"):
        check_content(source, local(source, tmp_path))


@pytest.mark.realdata
def test_the_real_mnist_counts_up(shared_data):
    check_content(MNIST, local(MNIST, shared_data / "mnist"))
    files = local(MNIST, shared_data / "mnist")
    labels = archives.idx_array(files["train-labels-idx1-ubyte.gz"])
    # The well-known number of training images of each digit.
    expected = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == expected


@pytest.mark.realdata
def test_the_real_omniglot_counts_up(shared_data):
    check_content(OMNIGLOT, local(OMNIGLOT, shared_data / "omniglot"))
