"""Your own pictures, in a folder per class: any format, mode and size that Pillow reads."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.data.prepare.cache import DECODING, cached
from jaxdl.data.prepare.decode import decode_image
from jaxdl.data.prepare.folder import PathLike, data_folder
from jaxdl.data.resize import Fit, fit
from jaxdl.data.sets import splits
from jaxdl.data.sets.images import ImageData, Split
from jaxdl.errors import InputError, RunError

ENDINGS = frozenset(
    {".apng", ".avif", ".bmp", ".dds", ".dib", ".gif", ".icns", ".ico", ".j2k", ".jfif", ".jp2"}
    | {".jpe", ".jpeg", ".jpg", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd"}
    | {".qoi", ".ras", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm", ".xpm"}
)
"""The ends of names, in lower case, that make a file a picture. Other files are ignored."""


class Pictures(NamedTuple):
    """Labelled pictures, sorted by class and then by file name.

    `images` is uint8 `[n, size, size, 1 or 3]`; `labels` is int32 `[n]` in `[0, classes)`;
    `class_names` is sorted; `files` has the path of each picture below the folder.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    files: tuple[str, ...]


def pictures(
    path: PathLike, *, size: int, grey: bool = False, data_dir: PathLike | None = None
) -> Pictures:
    """The pictures of a folder with a folder per class.

    A class is a folder that has pictures directly in it. Its name is its path below `path`, such as
    "cat" or "Greek/alpha". Hidden files and folders, and files whose names do not end as those of
    pictures (`ENDINGS`), are ignored.

    - A picture is turned upright by its EXIF orientation. Only the first frame of an animation
      counts. Transparent pixels show white. 16 bits give their high byte, and floats above 1 count
      as 0 to 255.
    - The shorter side is resized to `size` by Lanczos (antialiasing), and the longer side is
      cropped to the centre.

    The decoded arrays are cached in the data folder, under `arrays/pictures`. They are decoded
    again if a file is added, removed or renamed, or has another size or modification time, or if
    the folder has moved.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, colour in (("sky", "blue"), ("soil", "brown")):
    ...         (pathlib.Path(folder) / name).mkdir()
    ...         Image.new("RGB", (64, 48), colour).save(f"{folder}/{name}/1.png")
    ...     found = pictures(folder, size=32, data_dir=f"{folder}/.data")
    >>> found.images.shape, found.labels.tolist(), found.class_names, found.files
    ((2, 32, 32, 3), [0, 1], ('sky', 'soil'), ('sky/1.png', 'soil/1.png'))

    Args:
        size: rows and columns of the images.
        grey: 1 channel, and not 3.
        data_dir: the data folder. None is `$JAXDL_DATA`, or else the cache folder.

    Raises:
        InputError: if there is no such folder, or it has no pictures, one class only, or pictures
            beside the folders of classes; or if a file, which the message names, cannot be decoded.
    """
    classes = class_folders(path)
    return of_classes(path, classes, size=size, grey=grey, data_dir=data_dir)


def of_classes(
    path: PathLike,
    classes: Mapping[str, Sequence[str]],
    *,
    size: int,
    grey: bool = False,
    how: Fit = "crop",
    data_dir: PathLike | None = None,
) -> Pictures:
    """The pictures of `classes`: the files below `path` of each class. They are cached.

    Raises:
        InputError: if a file cannot be decoded.
    """
    root, shape = Path(path), (size, size, 1 if grey else 3)
    files = tuple(file for name in classes for file in classes[name])
    counts = [len(classes[name]) for name in classes]
    arrays = data_folder(data_dir) / "arrays" / "pictures" / f"{_key(root, files, shape, how)}.npz"
    images = cached(arrays, lambda: {"image": read(root, files, shape, how)})["image"]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return Pictures(images, labels, tuple(classes), files)


def class_folders(path: PathLike) -> dict[str, tuple[str, ...]]:
    """The classes of a folder, sorted: for each its files, as paths below `path`.

    Raises:
        InputError: as `pictures`, but no file is decoded.
    """
    found: dict[str, list[str]] = {}
    for file in picture_files(path):
        found.setdefault(file.rpartition("/")[0], []).append(file)
    if beside := found.get(""):
        raise InputError(
            f"{path} has {len(beside)} pictures that are in no class folder, among them"
            f" {beside[0]}. Move each picture into the folder of its class"
        )
    if len(found) == 1:
        raise InputError(
            f"{path} has one class only, {next(iter(found))}. Give a folder with a folder of"
            " pictures for each of several classes"
        )
    return {name: tuple(found[name]) for name in sorted(found)}


def picture_files(path: PathLike) -> tuple[str, ...]:
    """The pictures in a folder and in the folders below it, as sorted paths below `path`.

    Raises:
        InputError: if there is no such folder, or it has no pictures or cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"there is no folder {path}. Give a folder of pictures")
    try:
        found = sorted(_walk(root, "", ()))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error}). Get the permission to read it"
        ) from error
    if not found:
        raise InputError(
            f"{path} has no pictures. Give a folder of files such as .jpg, .png, .gif, .webp or"
            " .tif"
        )
    return tuple(found)


def read(root: Path, files: Sequence[str], shape: tuple[int, ...], how: Fit = "crop") -> np.ndarray:
    """Decodes pictures, several at a time: uint8 `[n, *shape]`, see `jaxdl.data.resize.fit`.

    Raises:
        InputError: if a file cannot be decoded or read; the message names it.
    """

    def one(name: str) -> np.ndarray:
        file = root / name
        try:
            return fit(decode_image(file.read_bytes(), 4, str(file), floats=True), shape, how)
        except RunError as error:
            raise InputError(str(error)) from error
        except OSError as error:
            raise InputError(
                f"{file} cannot be read ({error}). Correct the permissions, or leave it out"
            ) from error

    images = np.empty((len(files), *shape), np.uint8)
    # Few threads, because a photo is some 50 MB while it is decoded.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for index, image in enumerate(pool.map(one, files)):
            images[index] = image
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, the others are not decoded
    return images


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """Links are followed, but not around in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, real))
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
            yield prefix + entry.name


def _key(root: Path, files: Sequence[str], shape: tuple[int, ...], how: Fit) -> str:
    # Two folders may hold files of the same names, sizes and times.
    head = f"{DECODING}\n{shape}\n{how}\n{root.resolve()}\n"
    digest = hashlib.sha256(head.encode(errors="surrogateescape"))
    for name in files:
        try:
            about = (root / name).stat()
        except OSError as error:
            raise InputError(
                f"{root / name} cannot be read ({error}). Remove it, or correct the permissions"
            ) from error
        line = f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


# --- Class splits --------------------------------------------------------------------------------


def picture_splits(
    path: PathLike,
    *,
    size: int,
    grey: bool = False,
    seed: int = 0,
    lists: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> dict[Split, ImageData]:
    """The pictures of a folder as training, validation and test classes.

    The classes are split by `jaxdl.data.sets.splits.split_classes`: by `lists`, else by folders
    train, validation and test, else by `seed`. Labels count from 0 in each split. `notes` has the
    rule, the classes that are left out, and how the pictures were resized. The other arguments are
    those of `pictures`.

    Raises:
        InputError: as `pictures` and `split_classes`.
    """
    classes = class_folders(path)
    split = splits.split_classes(tuple(classes), seed=seed, lists=lists)
    chosen = {name for part in split.values() for name in part}
    notes = [splits.rule_of(tuple(classes), seed=seed, lists=lists)]
    if left := [name for name in classes if name not in chosen]:
        notes.append(f"Classes in no split, which are left out: {', '.join(left)}.")
    notes.append(
        f"Pictures: the shorter side resized to {size} pixels by Lanczos, the longer side cropped"
        " to the centre."
    )
    by_split = {name: {each: classes[each] for each in part} for name, part in split.items()}
    return parts_of(path, by_split, notes, size=size, grey=grey, data_dir=data_dir)


def parts_of(
    path: PathLike,
    by_split: Mapping[Split, Mapping[str, Sequence[str]]],
    notes: Sequence[str],
    *,
    size: int,
    grey: bool,
    how: Fit = "crop",
    data_dir: PathLike | None,
) -> dict[Split, ImageData]:
    """The pictures of the classes of each split, with `notes` and the number per class.

    Raises:
        InputError: if a file cannot be decoded.
    """
    counts = [len(files) for part in by_split.values() for files in part.values()]
    least, most = min(counts), max(counts)
    many = f"{least}" if least == most else f"{least} to {most}"
    sizes = ", ".join(f"{len(part)} for {name}" for name, part in by_split.items())
    told = (*notes, f"Classes: {sizes}, with {many} picture{'s' * (most > 1)} per class.")
    channels = 1 if grey else 3
    mean, std = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def data_of(part: Mapping[str, Sequence[str]]) -> ImageData:
        found = of_classes(path, part, size=size, grey=grey, how=how, data_dir=data_dir)
        return ImageData(found.images, found.labels, found.class_names, mean, std, told)

    return {name: data_of(part) for name, part in by_split.items()}
