"""Data of the user's own for few_shot: pictures by class folder, mini-ImageNet, a table."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdl.data.sets.images import ImageData, Split
from jaxdl.data.sets.mini_imagenet import mini_imagenet
from jaxdl.data.sets.pictures import picture_splits
from jaxdl.errors import InputError
from jaxdl.runs.config import Count, Natural
from jaxdl.runs.identity import Contents, added

OWN = ("folder", "mini_imagenet", "table")
"""The values of `data` that need a `path`."""


@dataclasses.dataclass(frozen=True)
class OwnData:
    """Data of your own: folders of pictures, mini-ImageNet, or a table."""

    path: Path | None = added(None)
    """Folder of the pictures, or CSV file."""
    size: Count = added(84)
    """Height and width of your pictures, in pixels."""
    grey: bool = added(False)
    """Your pictures become grey."""
    class_lists: Path | None = added(None)
    """Folder with train.txt, validation.txt and test.txt, a class per line. None: folders train,
    validation and test if there are, else a split of 64, 16 and 20 % by --split-seed."""
    split_seed: Natural = added(0)
    """Seed of the split of classes, or of the tasks of a table."""
    target: str = added("")
    """Column of the table to predict."""
    task: str = added("")
    """Column of the table that names each row's task. Without it, the target's values are the
    classes of few-shot tasks."""
    target_kind: Literal["auto", "class", "number"] = added("auto")
    """Whether the target is a class or a number. auto: a number if all its cells are numbers."""
    hidden: tuple[Count, ...] = added((64, 64))
    """Widths of the hidden layers of the dense net for tables."""
    drop_duplicates: bool = added(False)
    """Drops images of training and validation that a later split has, too."""


def check(config: Mapping[str, Any]) -> None:
    """Refuses own data without a path, and a path without own data.

    Raises:
        InputError: naming the fields.
    """
    data, path = config["data"], config.get("path")
    if data in OWN and path is None:
        raise InputError(f"`data={data}` needs a place to read. Give `path=`")
    if data not in OWN and path is not None:
        raise InputError(f"`data={data}` reads no path. Choose `data=` among {', '.join(OWN)}")
    if data == "table" and not config["target"]:
        raise InputError("a table needs the name of the column to predict. Give `target=`")
    if data == "table" and config.get("test_data"):
        raise InputError("a learner of a table cannot be tested on images. Leave out `test_data=`")


def content_of(config: Mapping[str, Any]) -> Contents:
    """The digest of own data, for `open_run`: of the pictures as they are used, or of the file.

    Raises:
        InputError: as `check`, or if they cannot be read.
    """
    check(config)
    if config["data"] not in OWN:
        return {}
    if config["data"] == "table":
        path = Path(config["path"])
        if not path.is_file():
            raise InputError(f"there is no file {path}. Check `path=`")
        return {"path": hashlib.sha256(path.read_bytes()).hexdigest()}
    digest = hashlib.sha256()
    for name, data in pictures_of(config).items():
        digest.update(repr((name, data.class_names, data.images.shape)).encode())
        digest.update(np.ascontiguousarray(data.labels).tobytes())
        digest.update(np.ascontiguousarray(data.images).data)
    return {"path": digest.hexdigest()}


def pictures_of(config: Mapping[str, Any]) -> dict[Split, ImageData]:
    """The own pictures of a run, by class split.

    Raises:
        InputError: as `picture_splits` and `mini_imagenet`.
    """
    names = ("data", "path", "size", "grey", "split_seed", "class_lists", "data_dir")
    return _pictures(*(_text(config[name]) for name in names))


@functools.lru_cache(maxsize=2)  # read for the identity of a run, and again for its tasks
def _pictures(
    data: str,
    path: str,
    size: int,
    grey: bool,
    seed: int,
    lists: str | None,
    data_dir: str | None,
) -> dict[Split, ImageData]:
    options: dict[str, Any] = {"size": size, "grey": grey, "data_dir": data_dir}
    if data == "mini_imagenet":
        return mini_imagenet(path, **options)
    return picture_splits(path, seed=seed, lists=lists, **options)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
