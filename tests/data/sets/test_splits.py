import json

import pytest

from jaxdl.data.prepare import archives
from jaxdl.data.sets import splits
from jaxdl.errors import InputError

SIZES = {
    "omniglot_vinyals": (1028, 172, 423),
    "cifar_fs": (64, 16, 20),
    "fc100": (12, 4, 4),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_published_split_has_its_sizes_and_no_class_twice(name):
    split = splits.published(name)
    assert tuple(len(split[part]) for part in splits.NAMES) == SIZES[name]
    everything = [c for part in splits.NAMES for c in split[part]]
    assert len(set(everything)) == sum(SIZES[name])
    for part in splits.NAMES:
        assert list(split[part]) == sorted(split[part])


@pytest.mark.realdata
def test_the_published_splits_are_those_of_their_source(shared_data):
    for ours, theirs in (("train", "train"), ("validation", "val"), ("test", "test")):

        def read(folder, file=theirs):
            return json.loads((shared_data / "splits" / folder / f"{file}.json").read_text())

        fine = {name for _, name in read("cifar-fs")}
        assert set(splits.published("cifar_fs")[ours]) == fine
        assert set(splits.published("fc100")[ours]) == set(read("fc100"))
        characters = {
            f"{alphabet}/{character}"
            for group in read("omniglot_vinyals").values()
            for alphabet, members in group.items()
            for character in members
        }
        assert set(splits.published("omniglot_vinyals")[ours]) == characters


@pytest.mark.realdata
def test_the_published_splits_name_all_real_classes(shared_data):
    def everything(name):
        return {c for part in splits.published(name).values() for c in part}

    def lines(name):
        return set((shared_data / "cifar100" / name).read_text().split())

    assert everything("cifar_fs") == lines("fine_label_names.txt")
    assert everything("fc100") == lines("coarse_label_names.txt")
    background, evaluation = (
        {
            f"{member['alphabet']}/character{member['character']}"
            for member, _ in archives.omniglot_drawings(shared_data / "omniglot" / archive)
        }
        for archive in ("images_background.zip", "images_evaluation.zip")
    )
    assert everything("omniglot_vinyals") == background | evaluation
    own = splits.alphabets(sorted(background | evaluation))
    assert (set(own["train"]), set(own["test"])) == (background, evaluation)


def test_shuffled_is_a_partition_that_the_order_of_names_does_not_change():
    names = [f"alphabet/character{i:04d}" for i in range(1623)]
    split = splits.shuffled(names)
    assert tuple(len(split[part]) for part in splits.NAMES) == (1100, 100, 423)
    assert sorted(c for part in splits.NAMES for c in split[part]) == names
    assert splits.shuffled(names[::-1]) == split
    assert splits.shuffled(names, seed=2) != split


def test_shuffled_never_changes():
    # `printf 1/a | sha256sum` and so on begin bf (a), da (b), df (c), 50 (d), 9d (e), b2 (f).
    split = splits.shuffled(list("abcdef"), train=3, validation=1)
    assert split == {"train": ("d", "e", "f"), "validation": ("a",), "test": ("b", "c")}


@pytest.mark.parametrize(
    ("names", "train", "validation"), [(list("abc"), 2, 1), (list("aabcd"), 1, 1)]
)
def test_shuffled_refuses_what_leaves_no_test_or_repeats(names, train, validation):
    with pytest.raises(InputError, match="cannot split"):
        splits.shuffled(names, train=train, validation=validation)
