"""Image sets as uint8 arrays in memory, as experiments load them.

Each set is decoded once. Later calls load its cached arrays (`jaxdl.data.prepare.cache`).
"""

from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

import numpy as np

from jaxdl.data.area import ink_by_area, ink_by_nearest
from jaxdl.data.labels import check_labels
from jaxdl.data.prepare import tfds
from jaxdl.data.prepare.cache import Arrays, cached
from jaxdl.data.prepare.folder import PathLike, data_folder, find, missing
from jaxdl.data.sets import splits
from jaxdl.data.sets.checked import of_images
from jaxdl.errors import InputError

Split = splits.Split
Resize = Literal["area", "nearest"]
"""How Omniglot's drawings of 105 x 105 become 28 x 28: by `ink_by_area` or `ink_by_nearest`."""

OMNIGLOT_SHUFFLED = (
    "Omniglot split: 1100/100/423 characters in the order of a seeded hash of their names; the "
    "original MAML code shuffles an unsorted directory listing, so its list cannot be reproduced."
)
OMNIGLOT_SEED = 1
"""The seed of that hash, where nothing else is asked for."""
OMNIGLOT_AREA = (
    "Omniglot images: 105 x 105 resized to 28 x 28 by area averaging; the original MAML code uses "
    "Pillow's Lanczos, which on these 1-bit images is the nearest pixel."
)
TWINS = {
    "cifar_fs": (
        "CIFAR-FS: 15 pairs of identical images lie across the class split, 8 in training and "
        "validation, 6 in training and test, 1 in validation and test; they are not removed."
    ),
    "fc100": (
        "FC100: 3 pairs of identical images lie across the class split, 2 in training and "
        "validation, 1 in training and test; they are not removed."
    ),
}

STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "omniglot": ((0.0,), (1.0,)),
    "cifar_fs": ((0.5088, 0.4917, 0.4437), (0.2674, 0.2564, 0.2772)),
    "fc100": ((0.5182, 0.4976, 0.4584), (0.2743, 0.2633, 0.2874)),
}
"""Mean and standard deviation per channel of the training images, scaled to `[0, 1]`. Omniglot is
not normalised: 0 is paper, 1 is ink."""


class ImageData(NamedTuple):
    """Labelled images; normalise them inside jit: `(images / 255 - mean) / std`.

    `images` is uint8 `[n, height, width, channels]`; `labels` is int32 `[n]` in `[0, classes)`;
    `class_names` has one name per class; `mean` and `std` are float32 `[channels]`. `notes` has one
    sentence per difference from the paper's data, or per surprise. Print the notes beside results.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    notes: tuple[str, ...] = ()


def load_arrays(name: str, split: str, *, data_dir: PathLike | None = None) -> Arrays:
    """All examples of any prepared TFDS set, stacked per feature `[examples, ...]`.

    `name` is as in TFDS: `"mnist"`, `"set/config"`, `"set/config:1.2.3"`. So is `split`: `"train"`,
    `"train[:10%]"`. Images are uint8 in `[0, 255]`. Class names are in `"label.names"`.

    Raises:
        InputError: if the set is not in the data folder or has no such split, or if a feature
            differs in shape between examples.
        RunError: if files are damaged.
    """
    return _load(name, quote(split, safe="[]%:+"), [split], None, data_dir)


def _load(
    name: str,
    form: str,
    source_splits: list[str],
    transform: tfds.Transform | None,
    data_dir: PathLike | None,
) -> Arrays:
    folder = data_folder(data_dir)
    path, version = find(name, folder)

    def make() -> Arrays:
        directory = folder / path / version
        if not directory.is_dir():
            raise missing(name, folder)
        parts = [tfds.read_arrays(directory, split, transform) for split in source_splits]
        return {
            key: parts[0][key]
            if key.endswith(".names")
            else np.concatenate([part[key] for part in parts])
            for key in parts[0]
        }

    arrays = folder / "arrays" / path / version / f"{form}.npz"
    return cached(arrays, make, folder / path / version)


def image_arrays(
    data: Literal["mnist", "cifar10", "cifar100"],
    split: Literal["train", "test"],
    *,
    data_dir: PathLike | None = None,
) -> ImageData:
    """A set for supervised learning, in the order of its TFDS files (a fixed shuffled order).

    MNIST has 60,000 training and 10,000 test images `[28, 28, 1]` in 10 classes. CIFAR-10 and
    CIFAR-100 have 50,000 training and 10,000 test images `[32, 32, 3]` in 10 and 100 classes.

    >>> import jaxdl
    >>> from jaxdl.data.augment import normalise
    >>> def batches(folder):
    ...     data = jaxdl.image_arrays("cifar100", "train", data_dir=folder)
    ...     seen = lambda key, image: normalise(image, data.mean, data.std)
    ...     return jaxdl.epochs(data.images, data.labels, batch=128, transform=seen, classes=100)
    >>> batches("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    jaxdl.errors.InputError: cifar100 is not in no/such/folder. Run `jaxdl prepare cifar100` ...

    Args:
        data_dir: the folder of prepared sets. None is `$JAXDL_DATA`, or else the cache folder.

    Raises:
        InputError: if `data` or `split` is unknown, the set is not in the data folder, or a label
            has no class name.
        RunError: if files are damaged.
    """
    if data not in ("mnist", "cifar10", "cifar100") or split not in ("train", "test"):
        raise InputError(
            f"{data} has no {split} split. Choose train or test of mnist, cifar10 or cifar100"
        )
    arrays = of_images(load_arrays(data, split, data_dir=data_dir), data, data_dir)
    images, names = arrays["image"], arrays["label.names"]
    labels = check_labels(arrays["label"], len(images), classes=len(names))
    return _image_data(data, images, labels, names)


def image_splits(
    data: Literal["mnist", "cifar10", "cifar100"],
    *,
    validation: int,
    data_dir: PathLike | None = None,
) -> dict[Split, ImageData]:
    """Training, validation and test set. The last `validation` training images are held out.

    Raises:
        InputError: if no training image is left, or as `image_arrays`.
        RunError: if files are damaged.
    """
    given = image_arrays(data, "train", data_dir=data_dir)
    count = len(given.labels)
    if not 0 <= validation < count:
        raise InputError(
            f"`validation={validation}` of {count:,} images: choose 0 to {count - 1:,}, because at"
            " least one must stay for training"
        )
    return {
        "train": rows(given, slice(count - validation)),
        "validation": rows(given, slice(count - validation, None)),
        "test": image_arrays(data, "test", data_dir=data_dir),
    }


def rows(data: ImageData, where: slice) -> ImageData:
    """A slice of the images, with their labels."""
    return data._replace(images=data.images[where], labels=data.labels[where])


def _image_data(
    data: str, images: np.ndarray, labels: np.ndarray, names: np.ndarray, *notes: str
) -> ImageData:
    mean, std = (np.array(value, np.float32) for value in STATISTICS[data])
    return ImageData(images, labels, tuple(map(str, names)), mean, std, notes)


# --- Few-shot sets -------------------------------------------------------------------------------


def few_shot_arrays(
    data: Literal["omniglot", "cifar_fs", "fc100"],
    split: Split,
    *,
    omniglot_split: Literal["maml", "vinyals", "alphabets"] = "maml",
    omniglot_seed: int = OMNIGLOT_SEED,
    omniglot_resize: Resize = "area",
    data_dir: PathLike | None = None,
) -> ImageData:
    """The classes of one split of a few-shot set, sorted by label. Labels count within the split.

    `"omniglot"`: `[n, 28, 28, 1]`, 20 drawings per character, ink 255 on paper 0. The characters of
    TFDS's two splits are divided 1100/100/423 at random (`"maml"`), 1028/172/423 as in Matching
    Networks (`"vinyals"`), or 964/0/659 by Omniglot's two sets of alphabets (`"alphabets"`).
    `"cifar_fs"` (64/16/20 classes) and `"fc100"` (60/20/20, no superclass in two splits):
    `[n, 32, 32, 3]`, CIFAR-100's train and test pooled, 600 images per class.

    >>> import jaxdl
    >>> def episodes(folder):  # 5-way 1-shot
    ...     data = jaxdl.few_shot_arrays("cifar_fs", "train", data_dir=folder)
    ...     return jaxdl.few_shot(data.images, data.labels, ways=5, shots=1, queries=5)
    >>> episodes("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    jaxdl.errors.InputError: cifar100 is not in no/such/folder. Run `jaxdl prepare cifar100` ...

    Args:
        split: the part of the classes. No class is in two splits.
        omniglot_split: see above. The other sets have only one division.
        omniglot_seed: another seed gives another random division of `"maml"`.
        omniglot_resize: `"area"` averages the ink of each pixel's box. `"nearest"` takes the pixel
            at its centre, as the code of MAML does.
        data_dir: the folder of prepared sets. None is `$JAXDL_DATA`, or else the cache folder.

    Raises:
        InputError: if an argument is unknown, or the set is not in the data folder.
        RunError: if files are damaged.
    """
    if split not in splits.NAMES:
        raise InputError(f"there is no split {split!r}. Choose train, validation or test")
    if data == "omniglot":
        return _omniglot(split, omniglot_split, omniglot_seed, omniglot_resize, data_dir)
    if data in ("cifar_fs", "fc100"):
        return _cifar(data, split, data_dir)
    raise InputError(f"there is no few-shot set {data!r}. Choose omniglot, cifar_fs or fc100")


def _omniglot(
    split: Split, omniglot_split: str, seed: int, resize: Resize, data_dir: PathLike | None
) -> ImageData:
    if seed != OMNIGLOT_SEED and omniglot_split != "maml":
        draws = f"`omniglot_seed={seed}` draws the random split"
        raise InputError(f"{draws}, and {omniglot_split!r} is a list. Leave one of them out")
    arrays = of_images(omniglot28(resize, data_dir=data_dir), "omniglot", data_dir)
    names = [character_name(name) for name in arrays["label.names"]]
    notes = [OMNIGLOT_AREA] * (resize == "area")
    if omniglot_split == "maml":
        chosen = splits.shuffled(names, seed=seed)
        other = f"Omniglot split: drawn by seed {seed}, by default by {OMNIGLOT_SEED}."
        notes = [OMNIGLOT_SHUFFLED, *notes, *[other] * (seed != OMNIGLOT_SEED)]
    elif omniglot_split == "vinyals":
        chosen = splits.published("omniglot_vinyals")
    elif omniglot_split == "alphabets":
        chosen = splits.alphabets(names)
    else:
        raise InputError(
            f"there is no Omniglot split {omniglot_split!r}. Choose maml, vinyals or alphabets"
        )
    if not chosen[split]:
        raise InputError(
            f"the Omniglot split {omniglot_split!r} has no {split} characters. Choose another split"
        )
    images, labels = choose_classes(arrays["image"], arrays["label"], names, chosen[split])
    return _image_data("omniglot", images, labels, np.array(chosen[split]), *notes)


def _cifar(data: str, split: Split, data_dir: PathLike | None) -> ImageData:
    parts = [load_arrays("cifar100", part, data_dir=data_dir) for part in ("train", "test")]
    parts = [of_images(part, "cifar100", data_dir) for part in parts]
    images, labels, coarse = (
        np.concatenate([part[key] for part in parts]) for key in ("image", "label", "coarse_label")
    )
    names = [str(name) for name in parts[0]["label.names"]]
    chosen = splits.published(data)[split]
    if data == "fc100":
        superclasses = parts[0]["coarse_label.names"]
        member = np.isin(superclasses[coarse], chosen)
        chosen = tuple(sorted(names[label] for label in np.unique(labels[member])))
    images, labels = choose_classes(images, labels, names, chosen)
    return _image_data(data, images, labels, np.array(chosen), TWINS[data])


def choose_classes(
    images: np.ndarray, labels: np.ndarray, names: list[str], chosen: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The images of the classes in `chosen`, sorted by class, and their indices in `chosen`.

    `names[label]` is the name of a class. The order inside a class is kept.

    Raises:
        InputError: if `names` lacks one of `chosen`, or labels are not in `[0, len(names))`.
    """
    labels = check_labels(labels, len(images), classes=len(names))
    lacking = sorted(set(chosen) - set(names))
    if lacking:
        raise InputError(
            f"the data lack {len(lacking)} classes of the split, among them {lacking[0]}."
            " Prepare the data again"
        )
    place = np.full(len(names), -1, np.int32)
    for index, name in enumerate(chosen):
        place[names.index(name)] = index
    labels = place[labels]
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    return images[order], labels[order]


def character_name(name: str) -> str:
    """TFDS's `Greek_0` as Omniglot's folders name it: `Greek/character01`."""
    alphabet, _, index = name.rpartition("_")
    return f"{alphabet}/character{int(index) + 1:02d}"


def omniglot28(resize: Resize = "area", *, data_dir: PathLike | None = None) -> Arrays:
    """All 32,460 drawings of 1623 characters: `image` uint8 `[n, 28, 28, 1]`, and TFDS's labels.

    Raises:
        InputError: if there is no such way to resize, or Omniglot is not in the data folder.
        RunError: if files are damaged.
    """
    if resize not in SMALLER:
        raise InputError(f"there is no way {resize!r} to resize Omniglot. Choose area or nearest")
    parts = ["train", "test"]
    return _load("omniglot", f"{resize}28", parts, partial(_ink, resize=resize), data_dir)


SMALLER = {"area": ink_by_area, "nearest": ink_by_nearest}


def _ink(arrays: Arrays, resize: Resize) -> Arrays:
    return {**arrays, "image": SMALLER[resize](arrays["image"][..., :1], 28)}


def cache_all(name: str, folder: Path) -> None:
    """Decodes a set that jaxdl prepares into all cached arrays that the functions above use.

    Raises:
        InputError, RunError: as these functions.
    """
    if name == "omniglot":
        omniglot28(data_dir=folder)
    else:
        for split in ("train", "test"):
            load_arrays(name, split, data_dir=folder)
