"""Class splits: training, validation and test. The published lists are in split_lists/*.json."""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

from jaxdl.data.prepare.folder import PathLike
from jaxdl.errors import InputError

Split = Literal["train", "validation", "test"]
Splits = dict[Split, tuple[str, ...]]
"""Class names of `"train"`, `"validation"` and `"test"`, each sorted."""
NAMES: tuple[Split, ...] = ("train", "validation", "test")
ALSO = {"validation": "val"}
"""Another name of a split, for its folder or its list."""
FEWEST = 2
"""Classes that each split of `split_classes` has at least."""


def published(name: str) -> Splits:
    """A published split, by name.

    `"omniglot_vinyals"`: 1028/172/423 characters (https://arxiv.org/abs/1606.04080);
    `"cifar_fs"`: 64/16/20 classes of CIFAR-100 (https://arxiv.org/abs/1805.08136);
    `"fc100"`: 12/4/4 superclasses of CIFAR-100 (https://arxiv.org/abs/1805.10123);
    `"mini_imagenet"`: 64/16/20 WordNet ids (https://openreview.net/forum?id=rJY0-Kcll).
    """
    path = resources.files("jaxdl.data.sets").joinpath("split_lists", f"{name}.json")
    lists = json.loads(path.read_text("utf-8"))
    return {split: tuple(lists[split]) for split in NAMES}


EVALUATION = (
    *("Angelic", "Atemayar_Qelisayer", "Atlantean", "Aurek-Besh", "Avesta", "Ge_ez", "Glagolitic"),
    *("Gurmukhi", "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian"),
    *("Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti", "Syriac_(Serto)", "Tengwar", "Tibetan"),
    "ULOG",
)
"""Omniglot's alphabets for evaluation (Lake et al. 2015); the other 30 are its background set."""


def alphabets(names: Sequence[str]) -> Splits:
    """Omniglot's own division of characters, whose names are like "Alphabet/character01".

    "train" is the background set of 30 alphabets, and "test" the 20 alphabets for evaluation.
    "validation" is empty.
    """
    test = [name for name in names if name.partition("/")[0] in EVALUATION]
    return {
        "train": tuple(sorted(set(names) - set(test))),
        "validation": (),
        "test": tuple(sorted(test)),
    }


def shuffled(
    names: Sequence[str], *, train: int = 1100, validation: int = 100, seed: int = 1
) -> Splits:
    """A random split of `names` into `train` and `validation` classes, and the rest for `test`.

    The default sizes are those of MAML's Omniglot split, 1100/100/423 characters. The order is that
    of sha256("seed/name"). It is the same on every machine, for every NumPy version and for any
    order of `names`.

    Raises:
        InputError: if nothing is left for `test`, or a name comes twice.
    """
    if len(set(names)) != len(names) or train + validation >= len(names):
        raise InputError(
            f"cannot split {len(names)} classes into {train} for training, {validation} for "
            "validation and the rest for test. Give distinct names and smaller numbers"
        )
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    parts = order[:train], order[train : train + validation], order[train + validation :]
    return {split: tuple(sorted(part)) for split, part in zip(NAMES, parts, strict=True)}


# --- Splits of the user's own classes ------------------------------------------------------------


def split_classes(
    class_names: Sequence[str], *, seed: int = 0, lists: PathLike | None = None
) -> Splits:
    """A split of the classes of a folder, whose names are paths such as "cat" or "Greek/alpha".

    1. With `lists`, a folder with train.txt, validation.txt (or val.txt) and test.txt, they are the
       split. Each line is the name of a class. A class in no list is left out.
    2. Else, if names begin with all of "train/", "validation/" (or "val/") and "test/", these
       folders are the split. Other classes are left out.
    3. Else the classes are put in the order of sha256("seed/name"). The first 64 % are for
       training, the next 16 % for validation, and the last 20 % for test. Each boundary is rounded
       to the nearest class (half up), and moves where a split would have fewer than 2 classes.

    Rule 3 gives the same split on every machine and for any order of the names. If one class is
    added, at most one other class moves across each of the two boundaries.

    >>> names = [f"{tens}{ones}" for tens in range(2) for ones in range(5)]
    >>> found = split_classes(names)
    >>> {split: len(part) for split, part in found.items()}
    {'train': 6, 'validation': 2, 'test': 2}
    >>> split_classes(["train/a", "train/b", "val/c", "val/d", "test/e", "test/f"])["validation"]
    ('val/c', 'val/d')

    Raises:
        InputError: if a split has fewer than 2 classes; if a list is missing, is no text, or names
            an unknown class or one class twice; or if two of the folders have a class of the same
            name, because few-shot learning is tested on other classes than it trains on.
    """
    if lists is not None:
        found = _by_lists(set(class_names), Path(lists))
    else:
        found = _by_folders(class_names) or _by_hash(class_names, seed)
    for split, part in found.items():
        if len(part) < FEWEST:
            raise InputError(
                f"the {split} split has {len(part)} classes. Give it at least {FEWEST}, or as many"
                " as a task has"
            )
    return found


def rule_of(
    class_names: Sequence[str], *, seed: int = 0, lists: PathLike | None = None, noun: str = "Class"
) -> str:
    """The rule of `split_classes` as a sentence, to stand beside results.

    Args:
        noun: what is split.
    """
    if lists is not None:
        return f"{noun} split: by lists of names."
    if _by_folders(class_names):
        return f"{noun} split: by the folders train, validation and test."
    return f"{noun} split: 64/16/20 % in the order of sha256(seed/name), with seed {seed}."


def _by_hash(names: Sequence[str], seed: int) -> Splits:
    count = len(names)
    if count < 3 * FEWEST:
        raise InputError(
            f"{count} classes are too few to split for training, validation and test. Give at"
            f" least {3 * FEWEST}"
        )
    first, second = (64 * count + 50) // 100, (80 * count + 50) // 100
    first = min(max(first, FEWEST), count - 2 * FEWEST)
    second = min(max(second, first + FEWEST), count - FEWEST)
    return shuffled(names, train=first, validation=second - first, seed=seed)


def _by_folders(names: Sequence[str]) -> Splits | None:
    below: dict[str, list[str]] = {}
    for name in sorted(names):
        top, slash, _ = name.partition("/")
        if slash:
            below.setdefault(top, []).append(name)
    tops = {split: split if split in below else ALSO.get(split, split) for split in NAMES}
    if not below.keys() >= set(tops.values()):
        return None
    found: Splits = {split: tuple(below[top]) for split, top in tops.items()}
    seen: dict[str, str] = {}
    for name in (name for part in found.values() for name in part):
        own = name.partition("/")[2]
        if own in seen:
            raise InputError(
                f"{seen[own]} and {name} are one class in two splits. Give each split classes of"
                " its own, because few-shot learning is tested on classes that it never saw"
            )
        seen[own] = name
    return found


def _by_lists(names: set[str], folder: Path) -> Splits:
    found: Splits = {}
    seen: dict[str, str] = {}
    for split in NAMES:
        paths = [folder / f"{name}.txt" for name in (split, ALSO.get(split, split))]
        path = next((each for each in paths if each.is_file()), paths[0])
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} cannot be read ({error}). Give a folder with train.txt, validation.txt and"
                " test.txt, each with a class name per line"
            ) from error
        listed = [line.strip() for line in lines if line.strip()]
        for name in listed:
            if name not in names:
                raise InputError(
                    f"{path} names the class {name}, but there is no such class. Name classes as"
                    f" the folder does, for example {min(names)}"
                )
            if name in seen:
                where = "twice" if seen[name] == split else f"and so does the list for {seen[name]}"
                raise InputError(f"{path} names the class {name} {where}. Name it once")
            seen[name] = split
        found[split] = tuple(sorted(listed))
    return found
