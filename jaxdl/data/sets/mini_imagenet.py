"""mini-ImageNet from a folder of its pictures, with the class split of Ravi and Larochelle (2017).

The pictures cannot be downloaded here, because ImageNet's licence forbids to pass them on. The 100
class names are WordNet ids such as n01532829, in `split_lists/mini_imagenet.json`.
"""

import re
from collections.abc import Mapping, Sequence

from jaxdl.data.prepare.folder import PathLike
from jaxdl.data.sets import splits
from jaxdl.data.sets.images import ImageData, Split
from jaxdl.data.sets.pictures import parts_of, picture_files
from jaxdl.errors import InputError

PER_CLASS = 600
"""Pictures of each class in the published set."""
WNID = re.compile(r"n\d{8}")


def mini_imagenet(
    path: PathLike, *, size: int = 84, grey: bool = False, data_dir: PathLike | None = None
) -> dict[Split, ImageData]:
    """The 64/16/20 classes of mini-ImageNet, `[n, size, size, 3]`, sorted by class in each split.

    The class of a picture is the innermost folder above it whose name is a WordNet id
    (`n01532829/1.jpg`, at any depth). Without such a folder, the name of the file begins with the
    id (`images/n0153282900000005.jpg`, as in the release of Ravi and Larochelle). Pictures of other
    classes are ignored. Folders such as train and test do not matter: the published lists decide.

    As in the code of MAML, a picture is resized to `size` x `size` by Lanczos and not cropped, so
    its proportions change. Decoded arrays are cached as by `jaxdl.data.sets.pictures.pictures`.

    Raises:
        InputError: if there is no such folder, if it lacks classes, which the message names, or if
            a file cannot be decoded.
    """
    by_class: dict[str, list[str]] = {}
    files = picture_files(path)
    for file in files:
        by_class.setdefault(wnid_of(file), []).append(file)
    by_split = {
        split: {name: by_class.get(name, []) for name in names}
        for split, names in splits.published("mini_imagenet").items()
    }
    wanted = {name: found for part in by_split.values() for name, found in part.items()}
    if lacking := [name for name, found in wanted.items() if not found]:
        raise InputError(
            f"{path} lacks {len(lacking)} of the {len(wanted)} classes of mini-ImageNet:"
            f" {', '.join(lacking)}. Give a folder with a folder for each class, or with files such"
            f" as {lacking[0]}00000005.jpg"
        )
    notes = _notes(wanted, len(files), size)
    return parts_of(path, by_split, notes, size=size, grey=grey, how="squash", data_dir=data_dir)


def wnid_of(file: str) -> str:
    """The WordNet id of a picture by its path; "" if the path has none.

    >>> wnid_of("train/n01532829/1.jpg"), wnid_of("images/n0153282900000005.jpg"), wnid_of("a.jpg")
    ('n01532829', 'n01532829', '')
    """
    *folders, name = file.split("/")
    for folder in reversed(folders):
        if WNID.fullmatch(folder):
            return folder
    found = WNID.match(name)
    return found[0] if found else ""


def _notes(wanted: Mapping[str, Sequence[str]], files: int, size: int) -> list[str]:
    notes = [
        "mini-ImageNet: the 64/16/20 classes of Ravi and Larochelle (2017).",
        f"Pictures: resized to {size} x {size} by Lanczos as in the code of MAML, which also stores"
        " them as JPEG again.",
    ]
    other = [name for name, found in wanted.items() if len(found) != PER_CLASS]
    if other:
        shown = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        notes.append(
            f"{len(other)} of {len(wanted)} classes have not the published {PER_CLASS} pictures:"
            f" {shown}."
        )
    if ignored := files - sum(map(len, wanted.values())):
        notes.append(f"{ignored:,} pictures of no class of mini-ImageNet are ignored.")
    return notes
