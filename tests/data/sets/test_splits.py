import json

import pytest

from jaxdl.data.prepare import archives
from jaxdl.data.sets import splits
from jaxdl.errors import InputError

SIZES = {
    "omniglot_vinyals": (1028, 172, 423),
    "cifar_fs": (64, 16, 20),
    "fc100": (12, 4, 4),
    "mini_imagenet": (64, 16, 20),
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
        table = (shared_data / "splits" / "miniimagenet" / f"{theirs}.csv").read_text().splitlines()
        wnids = {line.partition(",")[2] for line in table[1:]}
        assert set(splits.published("mini_imagenet")[ours]) == wnids
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


# ---- classes of the user's own folder


def sizes(split):
    return tuple(len(split[part]) for part in splits.NAMES)


def test_seeded_splits_have_64_16_and_20_percent_and_two_classes_at_least():
    names = [f"class {i}" for i in range(101)]
    expected = {6: (2, 2, 2), 7: (3, 2, 2), 10: (6, 2, 2), 20: (13, 3, 4), 100: (64, 16, 20)}
    expected[101] = (65, 16, 20)  # 64.64 and 80.8
    for count, parts in expected.items():
        assert sizes(splits.split_classes(names[:count])) == parts
    for count in range(6, 101):
        first, second, third = sizes(splits.split_classes(names[:count], seed=count))
        assert first + second + third == count
        assert min(first, second, third) >= 2
    with pytest.raises(InputError, match=r"5 classes are too few to split.*Give at least 6"):
        splits.split_classes(names[:5])


def test_a_seeded_split_never_changes():
    # `printf 0/a | sha256sum` and so on begin d3 (a), 7d (b), 28 (c), 9d (d), 7e (e), 25 (f).
    expected = {"train": ("c", "f"), "validation": ("b", "e"), "test": ("a", "d")}
    assert splits.split_classes(list("abcdef")) == expected
    assert splits.split_classes(list("fedcba")) == expected
    assert splits.split_classes(list("abcdef"), seed=1) != expected


def test_an_added_class_moves_at_most_one_other_across_each_boundary():
    names = [f"class {i}" for i in range(60)]
    place = {}
    for count in range(6, 60):
        before, place = place, {}
        for index, part in enumerate(splits.split_classes(names[:count]).values()):
            place |= dict.fromkeys(part, index)
        moves = [(before[name], place[name]) for name in before if before[name] != place[name]]
        assert all(abs(old - new) == 1 for old, new in moves)
        assert sum(0 in move for move in moves) <= 1
        assert sum(2 in move for move in moves) <= 1


FOLDERS = ["train/a", "train/b/x", "val/c", "val/d", "test/e", "test/f"]


def test_folders_train_validation_and_test_are_the_split():
    found = splits.split_classes([*FOLDERS, "other/g", "h"])
    assert [*found.values()] == [("train/a", "train/b/x"), ("val/c", "val/d"), ("test/e", "test/f")]
    long = [name.replace("val/", "validation/") for name in FOLDERS]
    assert splits.split_classes(long)["validation"] == ("validation/c", "validation/d")
    assert splits.rule_of(FOLDERS) == "Class split: by the folders train, validation and test."
    # Two of the three are classes like others.
    two = [name for name in FOLDERS if "val" not in name] + ["c", "d"]
    assert "sha256" in splits.rule_of(two)
    assert sizes(splits.split_classes(two)) == (2, 2, 2)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([*FOLDERS, "test/a"], "train/a and test/a are one class in two splits. Give each"),
        (FOLDERS[:-1], "the test split has 1 classes. Give it at least 2"),
    ],
)
def test_folders_that_are_no_split_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        splits.split_classes(names)


LISTS = {"train.txt": "b\n\n a \n", "validation.txt": "\ufeffc\nd", "test.txt": "Greek/e\r\nf\n"}
NAMES = [*"abcdf", "Greek/e", "g"]


def written(folder, files):
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8", newline="")
    return folder


def test_lists_are_the_split(tmp_path):
    found = splits.split_classes(NAMES, lists=written(tmp_path, LISTS))
    expected = {"train": ("a", "b"), "validation": ("c", "d"), "test": ("Greek/e", "f")}
    assert found == expected
    (tmp_path / "validation.txt").rename(tmp_path / "val.txt")
    assert splits.split_classes(NAMES, lists=tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"test.txt": "Greek/e\nz"},
            "test.txt names the class z, but there is no .* example Greek",
        ),
        ({"test.txt": "f\nf"}, "test.txt names the class f twice. Name it once"),
        ({"test.txt": "f\na"}, "names the class a and so does the list for train. Name it once"),
        ({"test.txt": "f"}, "the test split has 1 classes. Give"),
        ({"test.txt": ""}, "the test split has 0 classes. Give"),
    ],
)
def test_wrong_lists_are_refused(files, words, tmp_path):
    with pytest.raises(InputError, match=words):
        splits.split_classes(NAMES, lists=written(tmp_path, LISTS | files))


def test_missing_lists_and_lists_of_no_text_are_refused(tmp_path):
    written(tmp_path, LISTS)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"train.txt cannot be read \(.*\). Give a folder with"):
        splits.split_classes(NAMES, lists=tmp_path)
    (tmp_path / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train.txt cannot be read \(.*\). Give a folder with"):
        splits.split_classes(NAMES, lists=tmp_path)
