import itertools
from functools import cache

import jax
import numpy as np
import pytest

from jaxdl.data.episodes import few_shot
from jaxdl.data.sets.digits import (
    ALL_EIGHT,
    CLASSES,
    SEPARABLE,
    all_drawings,
    class_name,
    digits_few_shot,
    transform,
)
from jaxdl.errors import InputError

CANDIDATES = [(digit, t) for digit in range(10) for t in ALL_EIGHT]
CHOSEN = [(digit, t) for digit, transforms in CLASSES.items() for t in transforms]


@cache
def features(digit, chosen):
    drawings, digits = all_drawings()
    return transform(drawings[digits == digit], chosen).reshape(-1, 64).astype(np.int32)


def squared_distances(a, b):
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T


def own_is_nearer(a, b):
    """P(|a - a'| < |a - b|) over all drawings a, other drawings a' of its class, and b."""
    own = np.sort(squared_distances(a, a), axis=1)[:, 1:]  # the nearest of all is a itself
    other = squared_distances(a, b)
    nearer = [np.searchsorted(o, d).mean() / len(o) for o, d in zip(own, other, strict=True)]
    return float(np.mean(nearer))


@cache
def own_is_nearer_upright(digit, other, relative):
    return own_is_nearer(features(digit, (False, 0)), features(other, relative))


RELATIVE = {}  # turning both images of a pair alike changes no distance: 80 pairs cost as much as 8
_CORNER = np.arange(9).reshape(1, 3, 3)
for _s, _t, _u in itertools.product(ALL_EIGHT, repeat=3):
    if np.array_equal(transform(transform(_CORNER, _u), _s), transform(_CORNER, _t)):
        RELATIVE[_s, _t] = _u


def separability(one, two):
    """Accuracy of nearest neighbour on pixels, 2 ways and 1 shot, mean over both classes."""
    (digit, s), (other, t) = one, two
    return 0.5 * (
        own_is_nearer_upright(digit, other, RELATIVE[s, t])
        + own_is_nearer_upright(other, digit, RELATIVE[t, s])
    )


def test_the_shortcut_of_the_measure_is_right():
    one, two = (2, (True, 90)), (5, (False, 270))
    a, b = features(*one), features(*two)
    expected = 0.5 * (own_is_nearer(a, b) + own_is_nearer(b, a))
    assert separability(one, two) == pytest.approx(expected, abs=1e-9)
    # The measure itself, by brute force on some triples.
    a, b = a[:9], b[:7]
    triples = [
        ((a[i] - a[k]) ** 2).sum() < ((a[i] - b[j]) ** 2).sum()
        for i, k, j in itertools.product(range(9), range(9), range(7))
        if i != k
    ]
    assert own_is_nearer(a, b) == pytest.approx(np.mean(triples), abs=1e-9)


def test_no_two_classes_coincide():
    closest = min((separability(*pair), pair) for pair in itertools.combinations(CHOSEN, 2))
    assert closest[0] > SEPARABLE + 0.01, closest


def test_each_candidate_left_out_coincides_with_a_class():
    left_out = [candidate for candidate in CANDIDATES if candidate not in CHOSEN]
    assert len(left_out) == 80 - 32
    for candidate in left_out:
        assert min(separability(candidate, c) for c in CHOSEN) < SEPARABLE - 0.01, candidate


SPLITS = ("train", "validation", "test")


def test_the_splits_share_no_class_and_use_all():
    names = [name for split in SPLITS for name in digits_few_shot(split)[2]]
    assert len(names) == len(set(names)) == 32
    assert set(names) == {class_name(*candidate) for candidate in CHOSEN}


def test_the_splits_share_no_drawing_even_turned_or_mirrored():
    of_a_split = {}
    for split in SPLITS:
        images = digits_few_shot(split)[0]
        turns = [np.rot90(i, k, (1, 2)) for i in (images, images[:, :, ::-1]) for k in range(4)]
        of_a_split[split] = {image.tobytes() for turned in turns for image in turned}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not of_a_split[one] & of_a_split[other]


def test_the_classes_of_the_test_split_are_those_of_the_published_numbers():
    assert digits_few_shot("test")[2] == [
        "2",
        "4",
        "5",
        "6 mirrored",
        "6 turned 180",
        "6 turned 270",
        "7 mirrored, turned 180",
        "7 turned 180",
    ]


@pytest.mark.parametrize(
    ("split", "classes", "fewest", "most"),
    [("train", 18, 88, 91), ("validation", 6, 35, 37), ("test", 8, 54, 55)],
)
def test_a_split_holds_its_part_of_theall_drawings_in_the_named_transform(
    split, classes, fewest, most
):
    images, labels, names = digits_few_shot(split)
    assert images.shape == (len(labels), 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert labels.dtype == np.int32
    counts = np.bincount(labels)
    assert (len(counts), counts.min(), counts.max()) == (classes, fewest, most)
    candidates = {class_name(*candidate): candidate for candidate in CHOSEN}
    for label, name in enumerate(names):
        ours = images[labels == label].reshape(-1, 64).tolist()
        everything = features(*candidates[name]).tolist()
        begin = everything.index(ours[0])
        assert ours == everything[begin : begin + len(ours)]


def test_transforms_and_names_say_the_same():
    image = np.array([[[1, 2], [3, 4]]])
    expected = {
        "7": [[1, 2], [3, 4]],
        "7 turned 90": [[2, 4], [1, 3]],
        "7 turned 180": [[4, 3], [2, 1]],
        "7 turned 270": [[3, 1], [4, 2]],
        "7 mirrored": [[2, 1], [4, 3]],
        "7 mirrored, turned 90": [[1, 3], [2, 4]],
        "7 mirrored, turned 180": [[3, 4], [1, 2]],
        "7 mirrored, turned 270": [[4, 2], [3, 1]],
    }
    ours = {class_name(7, t): transform(image, t)[0].tolist() for t in ALL_EIGHT}
    assert ours == expected


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_gives_5_way_episodes(split):
    images, labels, _ = digits_few_shot(split)
    sample = few_shot(images, labels, ways=5, shots=5, queries=15)
    episode = jax.eval_shape(sample, jax.random.key(0))
    assert episode.query.x.shape == (75, 8, 8, 1)


def test_unknown_split():
    with pytest.raises(InputError, match=r"no split 'val'\. Choose train, validation or test"):
        digits_few_shot("val")
