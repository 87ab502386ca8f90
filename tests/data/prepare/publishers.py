"""Tiny data sets in the publishers' archive formats, and the `Source` that describes each."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jaxdl.data.prepare import archives
from jaxdl.data.prepare.sources import CIFAR10, CIFAR100, MNIST, OMNIGLOT, File, Source

ADDRESS = "http://127.0.0.1:9/"  # the discard port: nothing listens there


def known(source: Source, folder: Path, address: str = ADDRESS) -> Source:
    """`source` with the true sizes and checksums of the files that lie in `folder`."""
    files = []
    for file in source.files:
        content = (folder / file.name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files.append(File(address + file.name, len(content), digest))
    return source._replace(files=tuple(files))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(
    folder: Path, *, train: int = 6, test: int = 4, seed: int = 0
) -> tuple[Source, dict[str, np.ndarray]]:
    rng, arrays = np.random.default_rng(seed), {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        arrays |= {f"{part}-images-idx3-ubyte.gz": images, f"{part}-labels-idx1-ubyte.gz": labels}
    for name, array in arrays.items():
        (folder / name).write_bytes(gzip.compress(idx(array)))
    source = MNIST._replace(splits={"train": train, "test": test})
    return known(source, folder), arrays


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def cifar(
    folder: Path, *, classes: int = 3, train: int = 4, test: int = 2, fine: bool = False
) -> tuple[Source, dict[str, np.ndarray]]:
    """CIFAR-10, or with `fine` CIFAR-100 of `classes` classes, each its own superclass.

    Returns the rows of each member: label byte(s), then the pixels, channel first.
    """
    rng, rows = np.random.default_rng(1), {}
    folder.mkdir(parents=True, exist_ok=True)
    layout, source = (archives.CIFAR100, CIFAR100) if fine else (archives.CIFAR10, CIFAR10)
    layout = layout._replace(
        batches={"train": layout.batches["train"][:2], "test": layout.batches["test"]}
    )
    for split, count in (("train", train), ("test", test)):
        labels = np.repeat(np.arange(classes, dtype=np.uint8), count)
        order = rng.permutation(len(labels))
        columns = np.stack([labels[order]] * len(layout.names), axis=1)
        pixels = rng.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        parts = np.array_split(
            np.concatenate([columns, pixels], axis=1), len(layout.batches[split])
        )
        rows |= dict(zip(layout.batches[split], parts, strict=True))
    names = "\n".join(f"class{i}" for i in range(classes)) + "\n\n"
    members = {name: part.tobytes() for name, part in rows.items()}
    members |= dict.fromkeys(layout.names.values(), names.encode())
    tar(folder / layout.archive, {f"{layout.folder}/{name}": c for name, c in members.items()})
    source = source._replace(
        splits={"train": classes * train, "test": classes * test},
        per_class={"train": train, "test": test},
        labels=dict.fromkeys(source.labels, classes),
        names=partial(archives.cifar_names, layout),
        records=partial(archives.cifar_records, layout),
    )
    return known(source, folder), rows


def png(ink: np.ndarray) -> bytes:
    """A 1-bit PNG as Omniglot's: paper 1, ink 0."""
    file = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1").save(file, "png")
    return file.getvalue()


def omniglot(
    folder: Path, *, drawings: int = 2, side: int = 105
) -> tuple[Source, dict[str, np.ndarray]]:
    """Two alphabets with 3 + 2 characters; returns the ink of each member, by path."""
    rng, ink = np.random.default_rng(2), {}
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "train": {("Greek", 1): 2, ("Greek", 2): 3, ("N_Ko", 1): 1},
        "test": {("Tengwar", 1): 4, ("Tengwar", 2): 5},
        "small1": {("Greek", 1): 2},
        "small2": {("N_Ko", 1): 1},
    }
    for split, characters in contents.items():
        archive = archives.OMNIGLOT_ARCHIVES[split]
        with zipfile.ZipFile(folder / archive, "w") as file:
            file.writestr(f"{archive[:-4]}/", b"")  # the originals have folder entries
            for (alphabet, character), label in characters.items():
                for drawer in range(1, drawings + 1):
                    name = f"{alphabet}/character{character:02d}/{label:04d}_{drawer:02d}.png"
                    # The small archives repeat characters of the first one, as in the originals.
                    strokes = ink.setdefault(name, rng.random((side, side)) < 0.3)
                    file.writestr(f"{archive[:-4]}/{name}", png(strokes))
    source = OMNIGLOT._replace(
        splits={split: drawings * len(characters) for split, characters in contents.items()},
        per_class=dict.fromkeys(contents, drawings),
        labels={"alphabet": 3, "label": 5},
    )
    return known(source, folder), ink
