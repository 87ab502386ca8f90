"""Folders of pictures: classes, what a file holds, when the cache is stale, how to split."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdl.data.sets import pictures as module
from jaxdl.data.sets.pictures import class_folders, picture_splits, pictures
from jaxdl.errors import InputError

RNG = np.random.default_rng(0)


def save(path, content=100, size=(6, 5), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = content if isinstance(content, Image.Image) else Image.new(mode, size, content)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures; a picture is of one grey."""
    root = tmp_path / "given"
    for name, grey in {"a/1.png": 10, "a/2.png": 20, "b/1.png": 30, "b/2.png": 40}.items():
        save(root / name, grey)
    return root


def greys(found):
    return found.images[:, 0, 0, 0].tolist()


# ---- what is a class


def test_classes_and_files_are_sorted_and_named_by_their_paths(tmp_path):
    names = ["Greek/beta/2.PNG", "Greek/beta/10.png", "Greek/alpha/x.png", "cat/deep/er/1.bmp"]
    names += ["cat/1.gif", "Greek-2/1.jpg"]
    for grey, name in enumerate(names):
        save(tmp_path / name, 40 * grey)
    ignored = ["readme.txt", "cat/list.csv", "cat/.hidden.png", ".git/a/b.png", "__MACOSX/a/1.png"]
    for name in ignored:
        save(tmp_path / "kept.png").rename(make(tmp_path / name))
    found = pictures(tmp_path, size=4)
    assert found.class_names == ("Greek-2", "Greek/alpha", "Greek/beta", "cat", "cat/deep/er")
    assert found.files == (
        *("Greek-2/1.jpg", "Greek/alpha/x.png", "Greek/beta/10.png", "Greek/beta/2.PNG"),
        *("cat/1.gif", "cat/deep/er/1.bmp"),
    )
    assert found.labels.tolist() == [0, 1, 2, 2, 3, 4]
    assert found.labels.dtype == np.int32
    np.testing.assert_allclose(greys(found), [200, 80, 40, 0, 160, 120], atol=2)


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    save(tmp_path / "elsewhere" / "1.png", 50)
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "up").symlink_to(folder)
    assert list(class_folders(folder)) == ["a", "b", "c"]


def test_many_files_keep_their_order(tmp_path):
    for i in range(40):
        save(tmp_path / "ab"[i % 2] / f"{i:02d}.png", 6 * i)
    found = pictures(tmp_path, size=3)
    assert greys(found) == [6 * i for i in (*range(0, 40, 2), *range(1, 40, 2))]


# ---- what a file holds


def deep(dtype, value):
    return Image.fromarray(np.full((5, 6), value, dtype))


def palette(mode, alpha):
    image = Image.frombytes(mode, (6, 5), bytes([3] if mode == "P" else [3, alpha]) * 30)
    image.putpalette(bytes([0, 0, 0] * 3 + [100] * 3))
    return image


def lab():
    """Lightness 42.37 of 100 is the grey 100: ((100 / 255 + .055) / 1.055)^2.4 is Y = .1274."""
    return Image.new("LAB", (6, 5), (round(42.37 * 2.55), 128, 128))


CLEAR = 224  # 100 with alpha 51 on white: 100 / 5 + 255 * 4 / 5
MODES = {
    "L.png": (lambda: Image.new("L", (6, 5), 100), {}, 100),
    "LA.png": (lambda: Image.new("LA", (6, 5), (100, 51)), {}, CLEAR),
    "P.png": (lambda: palette("P", 255), {}, 100),
    "P, clear.png": (lambda: palette("P", 255), {"transparency": 3}, 255),
    "P, half clear.png": (lambda: palette("P", 0), {"transparency": bytes([0, 0, 0, 51])}, CLEAR),
    "P, clear.gif": (lambda: palette("P", 255), {"transparency": 3}, 255),
    "PA.tif": (lambda: palette("PA", 51), {}, CLEAR),
    "RGB.bmp": (lambda: Image.new("RGB", (6, 5), (100, 100, 100)), {}, 100),
    "RGB, clear.png": (
        lambda: Image.new("RGB", (6, 5), (100, 100, 100)), {"transparency": (100, 100, 100)}, 255,
    ),
    "RGBA.webp": (
        lambda: Image.new("RGBA", (6, 5), (100, 100, 100, 51)),
        {"lossless": True, "exact": True}, CLEAR,
    ),
    "1.png": (lambda: Image.new("1", (6, 5), 1), {}, 255),
    "CMYK.tif": (lambda: Image.new("CMYK", (6, 5), (0, 0, 0, 155)), {}, 100),
    "CMYK.jpg": (lambda: Image.new("CMYK", (6, 5), (0, 0, 0, 155)), {"quality": 100}, 100),
    "YCbCr.tif": (lambda: Image.new("YCbCr", (6, 5), (100, 128, 128)), {}, 100),
    "LAB.tif": (lab, {}, 100),
    "HSV.jpg": (
        lambda: Image.new("HSV", (6, 5), (0, 0, 100)).convert("RGB"), {"quality": 100}, 100,
    ),
    "16 bits.png": (lambda: deep(np.uint16, 100 * 256 + 9), {}, 100),
    "16 bits.tif": (lambda: deep(np.uint16, 100 * 256 + 9), {}, 100),
    "32 bits.tif": (lambda: deep(np.int32, 100 * 256 + 9), {}, 100),
    "floats to 1.tif": (lambda: deep(np.float32, 100 / 255), {}, 100),
    "floats to 255.tif": (lambda: deep(np.float32, 100.4), {}, 100),
    "animated.gif": (
        lambda: Image.new("L", (6, 5), 100),
        {"save_all": True, "append_images": [Image.new("L", (6, 5), 0)]}, 100,
    ),
    "animated.webp": (
        lambda: Image.new("RGB", (6, 5), (100,) * 3),
        {"save_all": True, "append_images": [Image.new("RGB", (6, 5))], "lossless": True}, 100,
    ),
}  # fmt: skip


@pytest.mark.parametrize("grey", [False, True])
def test_every_mode_has_its_grey_on_white(grey, tmp_path):
    """The class of a picture is its grey in the name of its folder."""
    for name, (image, options, value) in MODES.items():
        save(tmp_path / f"{value}" / name, image(), **options)
    found = pictures(tmp_path, size=4, grey=grey)
    assert found.images.shape == (len(MODES), 4, 4, 1 if grey else 3)
    for file, image in zip(found.files, found.images, strict=True):
        value, name = file.split("/")
        np.testing.assert_allclose(image, int(value), atol=2, err_msg=name)


def test_a_1_bit_picture_is_averaged(tmp_path):
    """On mode "1" Pillow ignores the filter, and takes the nearest pixel."""
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2).astype(bool))
    assert board.mode == "1"
    for name in ("a/1.png", "b/1.png"):
        save(tmp_path / name, board)
    found = pictures(tmp_path, size=8, grey=True)
    np.testing.assert_allclose(found.images[:, 1:-1, 1:-1], 127.5, atol=1)


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_photos_are_upright(turn, tmp_path):
    """As stored by a camera that was held in each of the eight ways; bright above, dark below."""
    scene = np.zeros((8, 8, 3), np.uint8)
    scene[:4], scene[:, :2, 0] = 200, 120
    held = {
        1: scene, 2: scene[:, ::-1], 3: np.rot90(scene, 2), 4: scene[::-1],
        5: scene.swapaxes(0, 1), 6: np.rot90(scene), 7: np.rot90(scene.swapaxes(0, 1), 2),
        8: np.rot90(scene, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(np.ascontiguousarray(held[turn]))
    for name in ("a/1.png", "b/1.webp"):
        save(tmp_path / name, stored, exif=exif, **({"lossless": True} if "webp" in name else {}))
    found = pictures(tmp_path, size=8).images
    np.testing.assert_array_equal(found, [scene, scene])


# ---- what is refused


def refused(path, words, **options):
    with pytest.raises(InputError) as caught:
        pictures(path, size=4, **options)
    assert re.search(words, str(caught.value)), caught.value
    assert re.search(r"\. [A-Z]", str(caught.value)), "two sentences"


def test_what_is_no_folder_of_classes_is_refused(folder, tmp_path):
    refused(tmp_path / "none", "there is no folder .*none. Give a folder")
    refused(save(tmp_path / "file.png"), "there is no folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    refused(tmp_path / "empty", "has no pictures. Give")
    save(tmp_path / "alone" / "cat" / "1.png")
    refused(tmp_path / "alone", "has one class only, cat. Give")
    save(folder / "loose.png")
    refused(folder, "1 pictures that are in no class folder, among them loose.png. Move")


def test_a_damaged_file_is_named_and_nothing_is_cached(folder, tmp_path):
    content = save(tmp_path / "noise.png", Image.fromarray(RNG.integers(0, 256, (99, 99, 3), "u1")))
    (folder / "b" / "3.png").write_bytes(content.read_bytes()[:5000])
    refused(folder, r"b/3.png cannot be decoded \(.*\). Replace it", data_dir=tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.npz"))
    (folder / "b" / "3.png").write_bytes(b"")
    refused(folder, "b/3.png cannot be decoded")
    os.replace(save(tmp_path / "x.tif", deep(np.float32, 300)), folder / "b" / "3.png")
    refused(folder, "b/3.png has floats from 300 to 300")
    os.replace(save(tmp_path / "x.tif", deep(np.float32, np.nan)), folder / "b" / "3.png")
    refused(folder, "b/3.png has floats from nan")


def test_after_an_error_the_others_are_not_decoded(folder, monkeypatch):
    read = []

    def decode(content, channels, name, **options):
        read.append(name)
        raise InputError("no. Stop")

    monkeypatch.setattr(module, "decode_image", decode)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    for i in range(300):
        save(folder / "a" / f"{i}.png", size=(1, 1))
    with pytest.raises(InputError, match=r"no\. Stop"):
        pictures(folder, size=4)
    assert len(read) < 300


# ---- the cache


def test_the_cache_is_used_and_notices_changes(folder, tmp_path, monkeypatch):
    decoded = []
    original = module.decode_image

    def decode(content, channels, name, **options):
        decoded.append(Path(name).relative_to(folder).as_posix())
        return original(content, channels, name, **options)

    monkeypatch.setattr(module, "decode_image", decode)

    def load(**options):
        decoded.clear()
        found = pictures(folder, **{"size": 4, "data_dir": tmp_path / "data", **options})
        return greys(found), len(decoded)

    assert load() == ([10, 20, 30, 40], 4)
    assert load() == ([10, 20, 30, 40], 0)
    (stored,) = (tmp_path / "data" / "arrays" / "pictures").iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.npz", stored.name)
    assert load(size=5)[1] == load(grey=True)[1] == 4

    # The same size in bytes, another time; then an added, a renamed and a removed file.
    before = (folder / "a" / "1.png").stat()
    save(folder / "a" / "1.png", 15)
    assert (folder / "a" / "1.png").stat().st_size == before.st_size
    os.utime(folder / "a" / "1.png", ns=(0, before.st_mtime_ns + 1))
    assert load() == ([15, 20, 30, 40], 4)
    save(folder / "a" / "3.png", 25)
    assert load() == ([15, 20, 25, 30, 40], 5)
    (folder / "a" / "3.png").rename(folder / "a" / "0.png")
    assert load() == ([25, 15, 20, 30, 40], 5)
    (folder / "b" / "1.png").unlink()
    assert load() == ([25, 15, 20, 40], 4)
    assert load() == ([25, 15, 20, 40], 0)


def test_another_folder_is_another_set(tmp_path):
    """Even if the names, sizes and times of its files are the same, as in some archives."""
    for name, level in {"clean": 255, "noisy": 100}.items():
        for part in "ab":
            (tmp_path / name / part).mkdir(parents=True)
            file = tmp_path / name / part / "1.bmp"
            Image.fromarray(np.full((4, 4), level, np.uint8)).save(file)
            os.utime(file, ns=(0, 0))
    found = [
        greys(pictures(tmp_path / name, size=4, data_dir=tmp_path)) for name in ("clean", "noisy")
    ]
    assert found == [[255, 255], [100, 100]]


# ---- splits


def test_splits_have_their_classes_labels_and_notes(tmp_path):
    for i in range(10):
        for each in range(1 + i % 3):
            save(tmp_path / f"class{i}" / f"{each}.png", 10 * i)
    found = picture_splits(tmp_path, size=4, grey=True, seed=3)
    assert list(found) == ["train", "validation", "test"]
    assert [len(each.class_names) for each in found.values()] == [6, 2, 2]
    assert sorted(name for each in found.values() for name in each.class_names) == [
        f"class{i}" for i in range(10)
    ]
    for data in found.values():
        assert data.images.shape[1:] == (4, 4, 1)
        assert data.images.dtype == np.uint8
        names = [data.class_names[label] for label in data.labels]
        assert [10 * int(name[-1]) for name in names] == data.images[:, 0, 0, 0].tolist()
        assert np.unique(data.labels).tolist() == list(range(len(data.class_names)))
        assert (data.mean.shape, data.mean.dtype, data.std.tolist()) == ((1,), np.float32, [1])
        split, resized, sizes = data.notes
        assert "sha256(seed/name), with seed 3" in split
        assert "shorter side resized to 4" in resized
        assert "6 for train, 2 for validation, 2 for test, with 1 to 3 pictures" in sizes
    assert picture_splits(tmp_path, size=4, seed=4)["test"].class_names != found["test"].class_names


def test_what_no_list_names_is_told_and_not_decoded(tmp_path):
    for name in "abcdefg":
        save(tmp_path / "given" / name / "1.png")
    (tmp_path / "given" / "g" / "1.png").write_bytes(b"damaged")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, classes in {"train": "ab", "val": "dc", "test": "fe"}.items():
        (lists / f"{name}.txt").write_text("\n".join(classes))
    found = picture_splits(tmp_path / "given", size=4, lists=lists)
    assert [data.class_names for data in found.values()] == [("a", "b"), ("c", "d"), ("e", "f")]
    assert found["test"].notes[:2] == (
        "Class split: by lists of names.",
        "Classes in no split, which are left out: g.",
    )


def test_folders_of_the_splits_are_the_split(tmp_path):
    for name in ("train/a", "train/b", "val/c", "val/d", "test/e", "test/x/f", "extra/g"):
        save(tmp_path / name / "1.png")
    found = picture_splits(tmp_path, size=4)
    assert found["test"].class_names == ("test/e", "test/x/f")
    assert "by the folders" in found["train"].notes[0]
    assert "extra/g" in found["train"].notes[1]
