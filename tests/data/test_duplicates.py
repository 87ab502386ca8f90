"""Equal images across splits, found by comparing each with each, and in the real CIFAR-100."""

import io
from itertools import combinations

import numpy as np
import pytest

from jaxdl.data.duplicates import cross_split_duplicates, drop_duplicates
from jaxdl.data.sets import splits
from jaxdl.errors import InputError


def few_pixels(seed=0, sizes=(30, 12, 20)):
    """Images of so few values that some are equal, inside a split and across splits."""
    rng = np.random.default_rng(seed)
    names = ("train", "validation", "test")
    return {
        name: rng.integers(0, 3, (n, 2, 2, 1), np.uint8)
        for name, n in zip(names, sizes, strict=True)
    }


def test_pairs_are_those_of_comparing_each_with_each():
    images = few_pixels()
    found = cross_split_duplicates(images)
    assert list(found) == list(combinations(images, 2))
    for (one, other), rows in found.items():
        equal = (images[one][:, None] == images[other][None]).all(axis=(2, 3, 4))
        assert equal.any()
        np.testing.assert_array_equal(rows, np.argwhere(equal))
        assert rows.dtype == np.int64


def test_no_pair_is_no_row():
    images = {"train": np.zeros((3, 2)), "test": np.ones((2, 2))}
    assert cross_split_duplicates(images)["train", "test"].shape == (0, 2)
    assert cross_split_duplicates({"train": np.zeros((3, 2))}) == {}


def test_all_that_a_later_split_has_is_dropped_and_nothing_else():
    images = few_pixels()
    labels = {name: np.arange(len(of)) for name, of in images.items()}
    dropped = drop_duplicates({name: (images[name], labels[name]) for name in images})
    assert list(dropped) == list(images)
    names = list(images)
    for place, name in enumerate(names):
        later = {bytes(image) for other in names[place + 1 :] for image in images[other]}
        expected = [row for row in labels[name] if bytes(images[name][row]) not in later]
        np.testing.assert_array_equal(dropped[name][1], expected)
        np.testing.assert_array_equal(dropped[name][0], images[name][expected])
    assert len(dropped["train"][0]) < 30
    assert len(dropped["test"][0]) == 20
    after = cross_split_duplicates({name: arrays[0] for name, arrays in dropped.items()})
    assert not any(len(rows) for rows in after.values())


def test_splits_that_cannot_be_compared_are_refused():
    train, test = np.zeros((3, 2, 2), np.uint8), np.zeros((3, 2, 2), np.float32)
    with pytest.raises(InputError, match=r"images of a are uint8 \[n, 2, 2\], but those of b are"):
        cross_split_duplicates({"a": train, "b": test})
    with pytest.raises(InputError, match=r"\[n, 2\]\. Give all splits one shape and type"):
        cross_split_duplicates({"a": train, "b": train[:, 0]})
    with pytest.raises(InputError, match=r"the split a have \[3, 2\] rows\. Give images first"):
        drop_duplicates({"a": (train, np.zeros(2))})


def cifar100(folder):
    """All 60,000 images, and their coarse and fine class names."""
    pillow = pytest.importorskip("PIL.Image")
    images, labels = [], []
    for file in ("train.npz", "test.npz"):
        with np.load(folder / file) as archive:
            strips = [name for name in archive.files if name != "labels"]
            images += [
                np.asarray(pillow.open(io.BytesIO(archive[name]))) for name in sorted(strips)
            ]
            labels.append(archive["labels"])
    labels = np.concatenate(labels)
    names = [
        np.array((folder / f"{kind}_label_names.txt").read_text().split())[labels[:, column]]
        for column, kind in enumerate(("coarse", "fine"))
    ]
    return np.concatenate(images).reshape(-1, 32, 32, 3), *names


@pytest.mark.realdata
@pytest.mark.slow
def test_cifar_fs_has_15_pairs_across_its_splits_and_fc100_has_3(shared_data):
    images, coarse, fine = cifar100(shared_data / "cifar100")
    for name, classes, counts in (("cifar_fs", fine, (8, 6, 1)), ("fc100", coarse, (2, 1, 0))):
        published = splits.published(name)
        of_split = {part: images[np.isin(classes, published[part])] for part in splits.NAMES}
        found = cross_split_duplicates(of_split)
        assert tuple(map(len, found.values())) == counts
        assert sum(counts) == {"cifar_fs": 15, "fc100": 3}[name]
        dropped = drop_duplicates({part: (of,) for part, of in of_split.items()})
        after = cross_split_duplicates({part: arrays[0] for part, arrays in dropped.items()})
        assert not any(len(rows) for rows in after.values())
        lost = sum(len(of_split[part]) - len(dropped[part][0]) for part in splits.NAMES)
        assert lost == len({(one, row) for (one, _), pairs in found.items() for row in pairs[:, 0]})
