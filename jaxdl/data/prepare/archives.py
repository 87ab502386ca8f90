"""Readers of the publishers' archives, without TFDS: idx, CIFAR tar, Omniglot zip.

They use the standard library and NumPy. They raise `RunError` if an archive is corrupt, cut short
or not what its name says.
"""

import gzip
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import RunError

Files = Mapping[str, Path]
"""The path of each archive, by the publisher's file name."""
Record = tuple[int | str, dict[str, Any]]
"""The sort key for TFDS, and one example; `image` is an array `[h, w, c]` or PNG bytes."""

CIFAR_SIDE = 32
OMNIGLOT_SIDE = 105
OMNIGLOT_PNG = re.compile(r"[^/]+/(?P<alphabet>[^/]+)/character(?P<character>\d+)/"
                          r"(?P<label>\d+)_(?P<drawer>\d+)\.png")  # fmt: skip


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the errors of a damaged archive into a `RunError`."""
    damage = (
        EOFError, OSError, KeyError, ValueError, struct.error, zlib.error,
        tarfile.TarError, zipfile.BadZipFile,
    )  # fmt: skip
    try:
        yield
    except damage as error:
        reason = " ".join(str(error).split())  # tarfile's messages have many lines
        raise RunError(
            f"{path} is corrupt, cut short or not the file that its name says ({reason}). "
            "Fetch it again and repeat the command"
        ) from error


def idx_array(path: Path) -> np.ndarray:
    """The uint8 array, of any rank, in a gzipped idx file (http://yann.lecun.com/exdb/mnist)."""
    with reading(path), gzip.open(path) as file:
        content = file.read()
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        if zeros != 0 or kind != 0x08:
            raise ValueError("not an idx file of bytes")
        shape = struct.unpack_from(f">{rank}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist_records(files: Files, split: str) -> Iterator[Record]:
    """Examples of one split of MNIST: image `[28, 28, 1]`, label in `[0, 10)`."""
    part = {"train": "train", "test": "t10k"}[split]
    paths = files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"]
    images, labels = map(idx_array, paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise RunError(
            f"{paths[0]} has the shape {images.shape} and {paths[1]} the shape {labels.shape}, but "
            "they must be images and their labels. Fetch them again"
        )
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield index, {"image": image[:, :, None], "label": int(label)}


def no_names(files: Files) -> dict[str, list[str]]:
    """No class names, for a data set whose classes have numbers only."""
    del files  # not needed
    return {}


class CifarLayout(NamedTuple):
    """The layout of a CIFAR archive; the label features are in the order of their bytes."""

    archive: str
    folder: str
    batches: dict[str, tuple[str, ...]]
    names: dict[str, str]


CIFAR10 = CifarLayout(
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    batches={
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    names={"label": "batches.meta.txt"},
)
CIFAR100 = CifarLayout(
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    batches={"train": ("train.bin",), "test": ("test.bin",)},
    names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
)


def tar_members(path: Path, folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """The content of the members `folder/name` of a tar with any compression."""
    wanted = {f"{folder}/{name}": name for name in names}
    found = {}
    with reading(path), tarfile.open(path, "r:*") as tar:
        for member in tar:
            name = wanted.get(member.name.removeprefix("./"))
            if name is None or not member.isfile():
                continue
            file = tar.extractfile(member)
            content = file.read() if file else b""
            if len(content) != member.size:
                raise EOFError(f"{member.name} ends early")
            found[name] = content
        if len(found) < len(wanted):
            missing = ", ".join(sorted(set(wanted.values()) - set(found)))
            raise ValueError(f"no {missing} in {folder}/")
    return found


def cifar_names(layout: CifarLayout, files: Files) -> dict[str, list[str]]:
    """Class names by label feature, in the order of the labels."""
    path = files[layout.archive]
    members = tar_members(path, layout.folder, layout.names.values())
    with reading(path):
        return {
            feature: [name for name in members[member].decode().split("\n") if name]
            for feature, member in layout.names.items()
        }


def cifar_records(layout: CifarLayout, files: Files, split: str) -> Iterator[Record]:
    """Examples of one split of CIFAR-10 or CIFAR-100: image `[32, 32, 3]`, id, label(s)."""
    path, features, side = files[layout.archive], tuple(layout.names), CIFAR_SIDE
    members = tar_members(path, layout.folder, layout.batches[split])
    index = 0
    for name in layout.batches[split]:
        with reading(path):
            rows = np.frombuffer(members[name], np.uint8).reshape(
                -1, len(features) + 3 * side * side
            )
        images = rows[:, len(features) :].reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
        for row, image in zip(rows, images, strict=True):
            labels = {feature: int(row[i]) for i, feature in enumerate(features)}
            yield index, {"id": f"{split}_{index:05d}", "image": image, **labels}
            index += 1


OMNIGLOT_ARCHIVES = {
    "train": "images_background.zip",
    "test": "images_evaluation.zip",
    "small1": "images_background_small1.zip",
    "small2": "images_background_small2.zip",
}


def omniglot_drawings(path: Path) -> Iterator[tuple[re.Match[str], zipfile.ZipFile]]:
    """The PNG members of an Omniglot zip, sorted by name, each with the open zip."""
    with reading(path), zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/"):
                continue
            member = OMNIGLOT_PNG.fullmatch(name)
            if member is None:
                raise ValueError(f"unexpected member {name}")
            yield member, archive


def omniglot_names(files: Files) -> dict[str, list[str]]:
    """The alphabets, and the characters as `Alphabet_0` in the order of the labels."""
    alphabets, characters = set(), dict[int, str]()
    for archive in OMNIGLOT_ARCHIVES.values():
        for member, _ in omniglot_drawings(files[archive]):
            alphabet, label = member["alphabet"], int(member["label"]) - 1
            name = f"{alphabet}_{int(member['character']) - 1}"
            alphabets.add(alphabet)
            if characters.setdefault(label, name) != name:
                other = characters[label]
                raise RunError(
                    f"{files[archive]} calls character {label + 1} {name}, not {other}."
                    " Fetch the archives again"
                )
    return {"alphabet": sorted(alphabets), "label": [characters[k] for k in sorted(characters)]}


def omniglot_records(files: Files, split: str) -> Iterator[Record]:
    """Examples of one split of Omniglot: image (PNG of 105 x 105), alphabet, character, label."""
    path = files[OMNIGLOT_ARCHIVES[split]]
    for member, archive in omniglot_drawings(path):
        with reading(path):
            png = archive.read(member.string)
            # The first chunk of a PNG has the size, so no image is decoded (there are 38,000).
            if png[12:24] != b"IHDR" + struct.pack(">II", OMNIGLOT_SIDE, OMNIGLOT_SIDE):
                raise ValueError(f"{member.string} is no PNG of {OMNIGLOT_SIDE} x {OMNIGLOT_SIDE}")
        alphabet, character = member["alphabet"], int(member["character"]) - 1
        file = member.string.rsplit("/", 1)[1]
        yield (
            f"{alphabet}_{character}_{file}",
            {
                "image": png,
                "alphabet": alphabet,
                "alphabet_char_id": character,
                "label": int(member["label"]) - 1,
            },
        )
