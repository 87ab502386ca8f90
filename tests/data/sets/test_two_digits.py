import itertools

import jax
import numpy as np
import pytest

from jaxdl.data.episodes import few_shot
from jaxdl.data.sets.digits import all_drawings
from jaxdl.data.sets.two_digits import numbers_few_shot
from jaxdl.errors import InputError

SPLITS = ("train", "validation", "test")


def halves(images):
    """The left and right drawings as bytes, `[N]` each."""
    return [[half.tobytes() for half in images[:, :, at : at + 8]] for at in (0, 8)]


def test_each_half_is_a_drawing_of_the_digit_that_the_name_says():
    drawings, digits = all_drawings()
    digit_of = {d.tobytes(): str(digit) for d, digit in zip(drawings, digits, strict=True)}
    for split in SPLITS:
        images, labels, names = numbers_few_shot(split)
        left, right = halves(images)
        read = [digit_of[a] + digit_of[b] for a, b in zip(left, right, strict=True)]
        assert read == [names[label] for label in labels]


@pytest.mark.parametrize(
    ("split", "classes", "fewest", "most"),
    [("train", 64, 87, 91), ("validation", 16, 34, 36), ("test", 20, 53, 55)],
)
def test_shapes_and_counts(split, classes, fewest, most):
    images, labels, names = numbers_few_shot(split)
    assert images.shape == (len(labels), 8, 16, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert labels.dtype == np.int32
    counts = np.bincount(labels)
    assert (len(counts), counts.min(), counts.max()) == (classes, fewest, most)
    assert len(names) == classes


def test_a_number_never_repeats_an_image_half_nor_doubles_a_drawing():
    images, labels, names = numbers_few_shot("train")
    for label in range(len(names)):
        left, right = halves(images[labels == label])
        assert len(set(left)) == len(left)
        assert len(set(right)) == len(right)
        assert not any(a == b for a, b in zip(left, right, strict=True))


def test_the_splits_share_no_number_and_no_drawing():
    parts = {}
    names = []
    for split in SPLITS:
        images, _, of_split = numbers_few_shot(split)
        names += of_split
        left, right = halves(images)
        parts[split] = set(left) | set(right)
    assert sorted(names) == [f"{n:02d}" for n in range(100)]
    for one, other in itertools.combinations(SPLITS, 2):
        assert not parts[one] & parts[other]


def test_training_shows_every_digit_in_both_places():
    _, _, names = numbers_few_shot("train")
    for place in (0, 1):
        assert {name[place] for name in names} == set("0123456789")


def test_the_classes_of_the_test_split_are_those_of_the_published_numbers():
    assert (
        " ".join(numbers_few_shot("test")[2])
        == "02 16 23 25 28 30 31 36 39 40 47 48 55 57 63 73 78 82 92 98"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_gives_10_way_5_shot_episodes(split):
    images, labels, _ = numbers_few_shot(split)
    sample = few_shot(images, labels, ways=10, shots=5, queries=15)
    assert jax.eval_shape(sample, jax.random.key(0)).query.x.shape == (150, 8, 16, 1)


def test_unknown_split():
    with pytest.raises(InputError, match=r"no split 'val'\. Choose train, validation or test"):
        numbers_few_shot("val")
