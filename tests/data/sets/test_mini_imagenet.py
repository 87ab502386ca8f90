"""mini-ImageNet from folders as its users have them, made of small pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdl.data.sets.mini_imagenet import mini_imagenet
from jaxdl.errors import InputError

LISTS = Path(__file__).parents[3] / "jaxdl" / "data" / "sets" / "split_lists" / "mini_imagenet.json"
WNIDS = {part: json.loads(LISTS.read_text())[part] for part in ("train", "validation", "test")}
ALL = [(part, name) for part, names in WNIDS.items() for name in names]


def save(path, value):
    """Blue says which class it is, and red that the left edge is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 12, 3), (0, 0, value), np.uint8)
    pixels[:, :3, 0] = 255
    Image.fromarray(pixels).save(path)


def in_folders(root):
    for index, (part, name) in enumerate(ALL):
        for each in range(2):
            save(root / {"validation": "val"}.get(part, part) / name / f"{each}.png", index)


def in_one_folder(root):
    for index, (_, name) in enumerate(ALL):
        for each in range(2):
            save(root / "images" / f"{name}{each:08d}.png", index)


def in_folders_of_another_split(root):
    for index, (_, name) in enumerate(ALL):
        for each in range(2):
            save(root / "train" / name / f"{name}_{each}.png", index)


@pytest.mark.parametrize("layout", [in_folders, in_one_folder, in_folders_of_another_split])
def test_each_layout_gives_the_published_classes(layout, tmp_path):
    layout(tmp_path)
    found = mini_imagenet(tmp_path, size=6)
    assert {part: list(data.class_names) for part, data in found.items()} == WNIDS
    values = {name: index for index, (_, name) in enumerate(ALL)}
    for part, data in found.items():
        count = len(WNIDS[part])
        assert data.images.shape == (2 * count, 6, 6, 3)
        np.testing.assert_array_equal(data.labels, np.repeat(np.arange(count), 2))
        blue = [values[data.class_names[label]] for label in data.labels]
        np.testing.assert_array_equal(data.images[:, 0, 0, 2], blue)
        # Not cropped: the left edge is there.
        assert data.images[:, :, 0, 0].min() > 200
        assert "Ravi and Larochelle" in data.notes[0]
        assert "Lanczos as in the code of MAML" in data.notes[1]
        assert data.notes[2].startswith("100 of 100 classes have not the published 600 pictures:")
        assert data.notes[3].startswith("Classes: 64 for train, 16 for validation, 20 for test")
    assert mini_imagenet(tmp_path, size=6, grey=True)["test"].images.shape == (40, 6, 6, 1)


def test_other_classes_are_ignored_and_told(tmp_path):
    in_folders(tmp_path)
    (tmp_path / "n99999999").mkdir()
    for name in ("n99999999/n0153282900000005.png", "picture.png"):
        (tmp_path / name).write_bytes(b"damaged")
    found = mini_imagenet(tmp_path, size=6)
    assert found["train"].notes[3] == "2 pictures of no class of mini-ImageNet are ignored."
    assert len(found["train"].labels) == 128


def test_the_published_number_is_no_note(tmp_path, monkeypatch):
    in_folders(tmp_path)
    monkeypatch.setattr("jaxdl.data.sets.mini_imagenet.PER_CLASS", 2)
    assert len(mini_imagenet(tmp_path, size=6)["test"].notes) == 3


def test_missing_classes_are_named(tmp_path):
    in_one_folder(tmp_path)
    gone = [WNIDS["train"][0], WNIDS["test"][19]]
    for name in gone:
        for path in (tmp_path / "images").glob(f"{name}*"):
            path.unlink()
    words = f"lacks 2 of the 100 classes of mini-ImageNet: {', '.join(gone)}. Give a folder with"
    with pytest.raises(InputError, match=re.escape(words)):
        mini_imagenet(tmp_path, size=6)
    with pytest.raises(InputError, match="there is no folder"):
        mini_imagenet(tmp_path / "none")
