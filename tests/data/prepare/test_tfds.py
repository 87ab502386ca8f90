import http.server
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data.prepare import sources, tfds
from jaxdl.data.prepare.fetch import workspace
from jaxdl.data.prepare.folder import find
from jaxdl.data.sets import images
from jaxdl.errors import InputError, RunError
from tests.data.prepare import publishers

MAKE = {
    "mnist": publishers.mnist,
    "cifar10": publishers.cifar,
    "cifar100": partial(publishers.cifar, fine=True),
    "omniglot": publishers.omniglot,
}


def quiet(_):
    pass


def prepare(source, folder, **options):
    tfds.prepare(source, folder, say=quiet, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with the four tiny sets, prepared once for all tests; nobody changes it."""
    root = tmp_path_factory.mktemp("data")
    for name, make in MAKE.items():
        source, _ = make(root / "published" / name)
        prepare(source, root / "data", from_dir=root / "published" / name)
    return root


def by_label(arrays):
    """Rows of pixels in an order that does not depend on how TFDS shuffled them."""
    rows = arrays["image"].reshape(len(arrays["image"]), -1)
    rows = np.concatenate([arrays["label"].astype(np.uint8)[:, None], rows], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def test_mnist_reads_back_what_was_published(folder):
    _, published = publishers.mnist(folder / "again")
    for split, part in (("train", "train"), ("test", "t10k")):
        arrays = images.load_arrays("mnist", split, data_dir=folder / "data")
        expected = {
            "image": published[f"{part}-images-idx3-ubyte.gz"],
            "label": published[f"{part}-labels-idx1-ubyte.gz"],
        }
        assert arrays["image"].shape == (*expected["image"].shape, 1)
        assert arrays["image"].dtype == np.uint8
        np.testing.assert_array_equal(by_label(arrays), by_label(expected))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_reads_back_what_was_published(folder, name):
    _, rows = MAKE[name](folder / "again")
    arrays = images.load_arrays(name, "train", data_dir=folder / "data")
    table = np.concatenate([part for member, part in rows.items() if "test" not in member])
    width = table.shape[1] - 3072
    pixels = table[:, width:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    # The id is the place in the published files.
    places = [int(text.removeprefix(b"train_")) for text in arrays["id"]]
    assert sorted(places) == list(range(len(table)))
    np.testing.assert_array_equal(arrays["image"], pixels[places])
    np.testing.assert_array_equal(arrays["label"], table[places, width - 1])
    assert arrays["label.names"].tolist() == ["class0", "class1", "class2"]
    if name == "cifar100":
        np.testing.assert_array_equal(arrays["coarse_label"], table[places, 0])


@pytest.mark.parametrize("resize", ["area", "nearest"])
def test_omniglot_ink_is_255_after_all(folder, resize):
    _, ink = publishers.omniglot(folder / "again")
    arrays = images.omniglot28(resize, data_dir=folder / "data")
    assert arrays["image"].shape == (10, 28, 28, 1)
    names = [images.character_name(name) for name in arrays["label.names"]]
    found = {}
    for image, label in zip(arrays["image"], arrays["label"], strict=True):
        found.setdefault(names[label], []).append(image[..., 0])
    assert sorted(found) == ["Greek/character01", "Greek/character02", "N_Ko/character01",
                             "Tengwar/character01", "Tengwar/character02"]  # fmt: skip
    for name, pictures in found.items():
        expected = [
            images.SMALLER[resize](np.where(strokes, 0, np.uint8(255))[None, ..., None], 28)[
                0, ..., 0
            ]
            for member, strokes in ink.items()
            if member.startswith(name)
        ]
        assert sorted(p.tobytes() for p in pictures) == sorted(p.tobytes() for p in expected)
        assert 60 < np.mean(pictures) < 95  # 0.3 ink: with ink and paper exchanged it were 179


def test_one_bit_images_decode_to_0_and_255():
    strokes = np.array([[True, False], [False, True]])
    for channels in (1, 3, 4):
        pixels = tfds.decode_image(publishers.png(strokes), channels)
        assert pixels.shape == (2, 2, channels)
        np.testing.assert_array_equal(pixels[..., 0], np.where(strokes, 0, 255))


@pytest.mark.parametrize("name", MAKE)
def test_features_splits_and_version_are_those_of_tfds_itself(folder, name):
    import tensorflow_datasets

    theirs = tensorflow_datasets.builder(name, data_dir=folder / "theirs")
    source = sources.SOURCES[name]
    # From the file: a download manager adds what it is given to the table in memory.
    table = Path(tensorflow_datasets.__file__).parent / "url_checksums" / f"{name}.txt"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    recorded = {url: (int(size), checksum) for url, size, checksum, _ in rows}
    assert str(theirs.version) == source.version
    for file in source.files:
        assert recorded[file.url] == (file.size, file.sha256)
    ours = tensorflow_datasets.builder_from_directory(folder / "data" / name / source.version)
    assert ours.name == name
    tiny = MAKE[name](folder / "again")[0].labels
    full = source.labels
    description = repr(ours.info.features)
    for feature in tiny:  # the tiny sets have fewer classes
        assert ours.info.features[feature].num_classes == tiny[feature]
        assert theirs.info.features[feature].num_classes == full[feature]
        description = description.replace(
            f"'{feature}': ClassLabel(shape=(), dtype=int64, num_classes={tiny[feature]})",
            f"'{feature}': ClassLabel(shape=(), dtype=int64, num_classes={full[feature]})",
        )
    assert description == repr(theirs.info.features)
    assert ours.info.supervised_keys == theirs.info.supervised_keys
    assert set(ours.info.splits) == set(source.splits)


def test_slices_and_versions_can_be_asked_for(folder):
    data = folder / "data"
    assert find("cifar10", data) == ("cifar10", "3.0.2")
    whole = images.load_arrays("cifar10:3.0.2", "train", data_dir=data)
    part = images.load_arrays("cifar10", "train[:5]", data_dir=data)
    np.testing.assert_array_equal(part["image"], whole["image"][:5])
    with pytest.raises(InputError, match=r"has no split 'valid'\. Choose from "):
        images.load_arrays("cifar10", "valid", data_dir=data)


def test_the_highest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0.incompleteXY"):
        (tmp_path / "set" / "config" / version).mkdir(parents=True)
    assert find("set/config", tmp_path) == ("set/config", "1.10.0")
    (tmp_path / "arrays" / "set" / "config" / "2.0.0").mkdir(parents=True)
    assert find("set/config", tmp_path) == ("set/config", "2.0.0")
    assert find("set/config:1.9.0", tmp_path) == ("set/config", "1.9.0")


def test_a_set_rebuilt_under_its_version_gives_its_new_images(tmp_path, capsys):
    """As `tfds build --overwrite` leaves it, which knows nothing of our arrays."""
    for seed in (0, 1):
        source, published = publishers.mnist(tmp_path / f"files{seed}", seed=seed)
        prepare(source, tmp_path / f"data{seed}", from_dir=tmp_path / f"files{seed}")
        shutil.rmtree(tmp_path / "data" / "mnist", ignore_errors=True)
        shutil.copytree(tmp_path / f"data{seed}" / "mnist", tmp_path / "data" / "mnist")
        for split, part in (("train", "train"), ("test", "t10k")):
            expected = {
                "image": published[f"{part}-images-idx3-ubyte.gz"],
                "label": published[f"{part}-labels-idx1-ubyte.gz"],
            }
            for _ in range(2):
                arrays = images.load_arrays("mnist", split, data_dir=tmp_path / "data")
                np.testing.assert_array_equal(by_label(arrays), by_label(expected))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == (0 if seed == 0 else 2)
        assert all("has changed since" in line for line in lines)


def test_what_prepare_installs_is_loaded_without_decoding_it_again(tmp_path, monkeypatch, capsys):
    source, _ = publishers.mnist(tmp_path / "files")
    keep = {"finish": lambda work: images.cache_all("mnist", work)}
    prepare(source, tmp_path / "data", from_dir=tmp_path / "files", **keep)
    monkeypatch.setattr(tfds, "read_arrays", None)
    assert len(images.load_arrays("mnist", "train", data_dir=tmp_path / "data")["label"]) == 6
    assert capsys.readouterr().err == ""


def test_images_that_mean_nothing_in_8_bits_are_not_called_damaged(folder, monkeypatch):
    def refuse(content, channels, name):
        raise InputError(f"{name} has floats")

    monkeypatch.setattr(tfds, "decode_image", refuse)
    directory = folder / "data" / "mnist" / "3.0.1"
    words = rf"^an image of the train split of {directory} \(feature 'image'\) has floats$"
    with pytest.raises(InputError, match=words):
        tfds.read_arrays(directory, "train")


# --- Streams -------------------------------------------------------------------------------------


def test_a_stream_is_a_pure_function_of_seed_and_index(folder):
    make = partial(tfds.stream, "cifar10", "train", batch_size=5, data_dir=folder / "data")
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    forward = [first[i]["id"].tolist() for i in range(6)]
    backward = [again[i]["id"].tolist() for i in reversed(range(6))]
    assert forward == backward[::-1]
    assert forward != [other[i]["id"].tolist() for i in range(6)]


def test_each_epoch_of_a_stream_is_another_permutation(folder):
    stream = tfds.stream("cifar10", "train", batch_size=4, seed=0, data_dir=folder / "data")
    rows = [text for i in range(6) for text in stream[i]["id"].tolist()]
    epochs = rows[:12], rows[12:]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(set(epochs[0])) == 12
    assert epochs[0] != epochs[1]


def test_batches_go_across_epochs_and_are_all_full(folder):
    stream = tfds.stream("cifar10", "train", batch_size=5, seed=0, data_dir=folder / "data")
    assert [len(stream[i]["label"]) for i in range(6)] == [5] * 6


def test_a_stream_gives_the_same_images_as_the_arrays(folder):
    arrays = images.load_arrays("cifar10", "train", data_dir=folder / "data")
    place = {text: i for i, text in enumerate(arrays["id"].tolist())}
    batch = tfds.stream("cifar10", "train", batch_size=7, seed=0, data_dir=folder / "data")[1]
    chosen = [place[text] for text in batch["id"].tolist()]
    np.testing.assert_array_equal(batch["image"], arrays["image"][chosen])
    np.testing.assert_array_equal(batch["label"], arrays["label"][chosen])


def test_a_stream_is_transformed_and_resumes_from_its_iterator_state(folder):
    stream = tfds.stream(
        "mnist",
        "train",
        batch_size=2,
        seed=0,
        transform=lambda example: {"mean": example["image"].mean()},
        data_dir=folder / "data",
    )
    assert stream[0].keys() == {"mean"}
    one = iter(stream.to_iter_dataset())
    next(one)
    state, expected = one.get_state(), next(one)
    two = iter(stream.to_iter_dataset())
    two.set_state(state)
    np.testing.assert_array_equal(next(two)["mean"], expected["mean"])
    np.testing.assert_array_equal(expected["mean"], stream[1]["mean"])


@pytest.mark.parametrize(
    ("name", "split", "batch_size", "sentence"),
    [
        ("svhn_cropped", "train", 4, "tfds build svhn_cropped --file_format=array_record"),
        ("mnist", "valid", 4, "has no split 'valid'"),
        ("mnist", "train", 0, "batch_size=0 must be at least 1"),
    ],
)
def test_a_stream_of_nothing_is_refused(folder, name, split, batch_size, sentence):
    with pytest.raises(InputError, match=sentence):
        tfds.stream(name, split, batch_size=batch_size, seed=0, data_dir=folder / "data")


# --- Preparing -----------------------------------------------------------------------------------


def nothing_installed(folder):
    return not folder.exists() or set(os.listdir(folder)) <= {".preparing.lock"}


def test_another_checksum_needs_consent(tmp_path):
    source, _ = publishers.omniglot(tmp_path / "files")
    wanted = source._replace(files=(source.files[0]._replace(sha256="0" * 64), *source.files[1:]))
    with pytest.raises(InputError, match="`accept_checksum=True`") as caught:
        prepare(wanted, tmp_path / "data", from_dir=tmp_path / "files")
    sentence = str(caught.value)
    assert source.files[0].name in sentence
    assert source.files[1].name not in sentence
    assert "0" * 64 in sentence
    assert source.files[0].sha256 in sentence
    assert nothing_installed(tmp_path / "data")
    prepare(wanted, tmp_path / "data", from_dir=tmp_path / "files", accept_checksum=True)
    assert find("omniglot", tmp_path / "data") == ("omniglot", "3.0.0")


def test_accepted_files_are_counted(tmp_path):
    source, _ = publishers.cifar(tmp_path / "files", train=3)
    wanted = source._replace(splits={"train": 12, "test": 6})
    with pytest.raises(RunError, match="has 12 examples, but these files hold 9"):
        prepare(wanted, tmp_path / "data", from_dir=tmp_path / "files", accept_checksum=True)
    assert nothing_installed(tmp_path / "data")


def test_missing_files_are_named(tmp_path):
    source, _ = publishers.mnist(tmp_path)
    for file in source.files[:2]:
        (tmp_path / file.name).unlink()
    with pytest.raises(InputError, match=rf"no {source.files[0].name}, {source.files[1].name}\. "):
        prepare(source, tmp_path / "data", from_dir=tmp_path)


def test_what_tfds_loses_is_noticed(tmp_path, monkeypatch):
    source, _ = publishers.mnist(tmp_path / "files")
    monkeypatch.setattr(tfds, "count_records", lambda *_: 5)
    with pytest.raises(RunError, match="kept 5 of the 6 examples"):
        prepare(source, tmp_path / "data", from_dir=tmp_path / "files")
    assert nothing_installed(tmp_path / "data")


def test_an_interrupted_preparation_leaves_nothing_and_the_next_one_cleans_up(tmp_path):
    source, _ = publishers.mnist(tmp_path / "files")

    def interrupt(work):
        assert (work / "mnist" / "3.0.1").is_dir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "data", from_dir=tmp_path / "files", finish=interrupt)
    assert nothing_installed(tmp_path / "data")
    (tmp_path / "data" / ".preparing-mnist-left" / "mnist").mkdir(parents=True)  # by kill -9
    prepare(source, tmp_path / "data", from_dir=tmp_path / "files")
    assert set(os.listdir(tmp_path / "data")) == {".preparing.lock", "mnist"}


def test_two_preparations_at_once_are_refused(tmp_path):
    source, _ = publishers.mnist(tmp_path / "files")
    with workspace(tmp_path / "data", "cifar10") as work:
        with pytest.raises(RunError, match="another process prepares data"):
            prepare(source, tmp_path / "data", from_dir=tmp_path / "files")
        assert work.is_dir()


def test_damaged_records_are_named(tmp_path):
    source, _ = publishers.mnist(tmp_path / "files")
    prepare(source, tmp_path / "data", from_dir=tmp_path / "files")
    [path] = (tmp_path / "data" / "mnist" / "3.0.1").glob("*train*")
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(200) + content[300:])
    with pytest.raises(RunError, match="Delete it and prepare it again"):
        images.load_arrays("mnist", "train", data_dir=tmp_path / "data")


def test_missing_metadata_is_named(tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(RunError, match="is no complete TFDS data set"):
        images.load_arrays("mnist", "train", data_dir=tmp_path)


# --- The network ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/files; gives its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=tmp_path / "files")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_a_set_is_downloaded_and_prepared(tmp_path, server):
    source, published = publishers.mnist(tmp_path / "files")
    prepare(publishers.known(source, tmp_path / "files", server), tmp_path / "data")
    arrays = images.load_arrays("mnist", "test", data_dir=tmp_path / "data")
    assert sorted(arrays["label"]) == sorted(published["t10k-labels-idx1-ubyte.gz"])


def test_a_download_with_another_checksum_is_refused(tmp_path, server):
    source, _ = publishers.mnist(tmp_path / "files")
    source = publishers.known(source, tmp_path / "files", server)
    (tmp_path / "files" / source.files[0].name).write_bytes(b"something else")
    with pytest.raises(RunError, match="has wrong checksum"):
        prepare(source, tmp_path / "data")
    assert not (tmp_path / "data" / "mnist").exists()


def test_a_file_that_is_gone_is_named(tmp_path, server):
    source, _ = publishers.mnist(tmp_path / "files")
    source = publishers.known(source, tmp_path / "files", server)
    (tmp_path / "files" / source.files[0].name).unlink()
    with pytest.raises(InputError, match=r"404.*jaxdl prepare mnist --from DIR"):
        prepare(source, tmp_path / "data")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "https://nowhere.invalid/"])
def test_no_network_is_said_in_a_sentence_and_soon(tmp_path, address):
    source, _ = publishers.mnist(tmp_path / "files")
    source = publishers.known(source, tmp_path / "files", address)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot reach .*`jaxdl prepare mnist --from DIR`"):
        prepare(source, tmp_path / "data")
    assert time.monotonic() - start < 6
    assert nothing_installed(tmp_path / "data")


def test_a_server_that_never_answers_is_given_up(tmp_path):
    source, _ = publishers.mnist(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(InputError, match="cannot reach"):
            tfds.check_network(publishers.known(source, tmp_path, address), timeout=0.2)


# --- Real data -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.realdata
def test_real_omniglot_from_archive_to_episodes(tmp_path, shared_data):
    tfds.prepare(
        sources.OMNIGLOT,
        tmp_path,
        from_dir=shared_data / "omniglot",
        accept_checksum=True,
        finish=lambda work: images.cache_all("omniglot", work),
        say=quiet,
    )
    for kind, sizes in (("maml", (1100, 100, 423)), ("vinyals", (1028, 172, 423))):
        for split, size in zip(("train", "validation", "test"), sizes, strict=True):
            data = images.few_shot_arrays("omniglot", split, omniglot_split=kind, data_dir=tmp_path)
            np.testing.assert_array_equal(np.bincount(data.labels), np.full(size, 20))
            assert 15 < data.images.mean() < 27  # a thin line on much paper


@pytest.mark.slow
@pytest.mark.realdata
def test_real_cifar_from_archive_to_splits(tmp_path, shared_data):
    stage = shared_data.parent / "tools" / "stage_data.py"
    names = ("cifar10", "cifar100")
    subprocess.run([sys.executable, stage, tmp_path, *names], check=True, capture_output=True)
    data = tmp_path / "data"
    for name in names:
        source, published = sources.SOURCES[name], tmp_path / name
        tfds.prepare(
            source,
            data,
            from_dir=published,
            accept_checksum=True,
            finish=lambda work, name=name: images.cache_all(name, work),
            say=quiet,
        )
        arrays = images.load_arrays(name, "test", data_dir=data)
        files = {file.name: published / file.name for file in source.files}
        records = {record["id"]: record for _, record in source.records(files, "test")}
        for text, image, label in zip(arrays["id"], arrays["image"], arrays["label"], strict=True):
            record = records.pop(text.decode())
            assert record["label"] == label
            np.testing.assert_array_equal(record["image"], image)
        assert not records
        assert_statistics(images.image_arrays(name, "train", data_dir=data))
    for name, sizes in (("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))):
        for split, size in zip(("train", "validation", "test"), sizes, strict=True):
            found = images.few_shot_arrays(name, split, data_dir=data)
            np.testing.assert_array_equal(np.bincount(found.labels), np.full(size, 600))
            if split == "train":
                assert_statistics(found)
    assert twins("cifar_fs", data) == [8, 6, 1]
    assert twins("fc100", data) == [2, 1, 0]


def twins(name, folder):
    """Pairs of identical images across two splits, for each two: the numbers of `images.TWINS`."""
    splits = [
        Counter(map(bytes, images.few_shot_arrays(name, split, data_dir=folder).images))
        for split in ("train", "validation", "test")
    ]
    return [sum((one & two).values()) for one, two in itertools.combinations(splits, 2)]


def assert_statistics(data):
    """The recorded mean and deviation are those of the images, to the digits recorded."""
    count = data.images[..., 0].size
    values = np.arange(256) / 255
    for channel in range(data.images.shape[-1]):
        share = np.bincount(data.images[..., channel].ravel(), minlength=256) / count
        mean = share @ values
        deviation = np.sqrt(share @ values**2 - mean**2)
        np.testing.assert_allclose(data.mean[channel], mean, atol=6e-5)
        np.testing.assert_allclose(data.std[channel], deviation, atol=6e-5)
