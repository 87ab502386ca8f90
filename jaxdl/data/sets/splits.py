"""Class splits: training, validation and test. The published lists are in split_lists/*.json."""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources

from jaxdl.errors import InputError

Splits = dict[str, tuple[str, ...]]
"""Class names of `"train"`, `"validation"` and `"test"`, each sorted."""
NAMES = ("train", "validation", "test")


def published(name: str) -> Splits:
    """A published split, by name.

    `"omniglot_vinyals"`: 1028/172/423 characters (https://arxiv.org/abs/1606.04080);
    `"cifar_fs"`: 64/16/20 classes of CIFAR-100 (https://arxiv.org/abs/1805.08136);
    `"fc100"`: 12/4/4 superclasses of CIFAR-100 (https://arxiv.org/abs/1805.10123).
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
