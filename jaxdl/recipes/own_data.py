"""Data of the user's own for few_shot: pictures by class folder, mini-ImageNet, a table."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdl.data.sets.csv_table import Table, read_table
from jaxdl.data.sets.images import ImageData, Split
from jaxdl.data.sets.mini_imagenet import mini_imagenet
from jaxdl.data.sets.pictures import class_folders, picture_splits
from jaxdl.errors import InputError
from jaxdl.runs.config import Count, Natural
from jaxdl.runs.flags import given
from jaxdl.runs.identity import Contents, added

READS: dict[str, tuple[str, ...]] = {
    "folder": ("path", "size", "grey", "class_lists", "split_seed", "drop_duplicates"),
    "mini_imagenet": ("path", "size", "grey", "drop_duplicates"),
    "table": ("path", "class_lists", "split_seed", "target", "task", "target_kind", "hidden"),
}
"""The fields of `OwnData` that each of the user's own data reads."""
OWN = tuple(READS)
"""The values of `data` that need a `path`."""
NETS = {"filters": 32, "head": "xavier", "norm": "batch"}
"""Fields of the nets for images, and their defaults: the net of a table reads `hidden` alone."""
PREPARED = ("drop_duplicates",)
"""The fields that other data read."""


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
    """Folder with train.txt, validation.txt and test.txt, a class per line (for a table with
    --task: a task per line). None: folders train, validation and test if there are, else a split of
    64, 16 and 20 % by --split-seed."""
    split_seed: Natural = added(0)
    """Seed of the split of classes, or of the tasks of a table."""
    target: str = added("")
    """Column of the table to predict."""
    task: str = added("")
    """Column of the table that names each row's task. Without it, the target's values are the
    classes of few-shot tasks."""
    target_kind: Literal["auto", "class", "number"] = added("auto")
    """Whether the target is a class or a number. auto: a number if all its cells are numbers.
    Without --task it is a class, and numbers with decimals are refused."""
    hidden: tuple[Count, ...] = added((64, 64))
    """Widths of the hidden layers of the dense net for tables."""
    drop_duplicates: bool = added(False)
    """Drops images of training and validation that a later split has, too."""


def check(config: Mapping[str, Any]) -> None:
    """Refuses own data without a path, and fields that the data do not read.

    Raises:
        InputError: naming the fields.
    """
    data, path = config["data"], config.get("path")
    if data in OWN and path is None:
        raise InputError(f"`data={data}` needs a place to read. Give `path=`")
    if data not in OWN and path is not None:
        raise InputError(f"`data={data}` reads no path. Choose `data=` among {', '.join(OWN)}")
    for name, default in _DEFAULTS.items():
        value = config.get(name, default)
        if name not in READS.get(data, PREPARED) and value != default:
            raise InputError(f"`data={data}` does not read `{name}={_shown(value)}`. Leave it out")
    unread = NETS if data == "table" else {}
    unread = {**unread, "ways": 5} if config.get("task") else unread
    for name, default in unread.items():
        if config.get(name, default) != default:
            raise InputError(f"a table does not read `{name}={config[name]}` here. Leave it out")
    if data == "table" and config["rotations"] != "none":
        raise InputError(
            f"`rotations={config['rotations']}` turns images, and a table has none. Leave it out"
        )
    if data == "table" and config["target_kind"] == "number" and not config["task"]:
        raise InputError(
            "`target_kind=number` needs tasks: rows with one value in a column. Give `task=`"
        )
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
        _check_file(config)
        of_table = hashlib.sha256(Path(config["path"]).read_bytes())
        for file in _lists(config):  # they decide who is tested
            of_table.update(f"\n{file.name}\n".encode() + file.read_bytes())
        return {"path": of_table.hexdigest()}
    digest = hashlib.sha256()
    for name, data in pictures_of(config).items():
        digest.update(repr((name, data.class_names, data.images.shape)).encode())
        digest.update(np.ascontiguousarray(data.labels).tobytes())
        digest.update(np.ascontiguousarray(data.images).data)
    return {"path": digest.hexdigest()}


def table_of(config: Mapping[str, Any]) -> Table:
    """The table of a run, whose target is text where it is a class.

    Raises:
        InputError: as `read_table`, or if a target without tasks has numbers with decimals.
    """
    _check_file(config)
    stamp = Path(config["path"]).stat()
    names = ("target", "task", "target_kind")
    return _table(str(config["path"]), *(config[name] for name in names), stamp.st_mtime_ns)


@functools.lru_cache(maxsize=2)  # read for the default learner, and again for the tasks
def _table(path: str, target: str, task: str, kind: Any, changed: int) -> Table:
    table = read_table(path, target, task=task)
    if not np.issubdtype(table.target.dtype, np.floating):
        return read_table(path, target, task=task, kind=kind)  # raises if it is to be a number
    if task and kind != "class":
        return table
    if (table.target != np.round(table.target)).any():
        raise InputError(
            f"the target {target!r} has numbers with decimals, and each would be a class of its"
            " own. For a regression give `task=`, the column that names each row's task, and no"
            " `target_kind=class`; for classes write words"
        )
    return read_table(path, target, task=task, kind="class")


def _check_file(config: Mapping[str, Any]) -> None:
    if not Path(config["path"]).is_file():
        raise InputError(f"there is no file {config['path']}. Check `path=`")


def asks_for_numbers(arguments: Sequence[str]) -> bool:
    """Whether the arguments of a command line ask for a regression; False if data cannot be read.

    The defaults of a learner's flags depend on it.
    """
    words = {name: given(arguments, name) or "" for name in ("data", "path", "target", "task")}
    kind = given(arguments, "target_kind") or "auto"
    try:
        return predicts_numbers({**_DEFAULTS, "rotations": "none", **words, "target_kind": kind})
    except InputError:
        return False  # the run itself says what is wrong


def predicts_numbers(config: Mapping[str, Any]) -> bool:
    """Whether the data of a run are a regression.

    Raises:
        InputError: as `check` and `table_of`.
    """
    check(config)
    if config["data"] != "table" or not config["task"]:
        return False
    return bool(np.issubdtype(table_of(config).target.dtype, np.floating))


def pictures_of(config: Mapping[str, Any]) -> dict[Split, ImageData]:
    """The own pictures of a run, by class split.

    Raises:
        InputError: as `picture_splits` and `mini_imagenet`.
    """
    names = ("data", "path", "size", "grey", "split_seed", "class_lists", "data_dir")
    return _pictures(_stamp(config), *(_text(config[name]) for name in names))


def _lists(config: Mapping[str, Any]) -> list[Path]:
    """The files of `class_lists`; those that are missing are told where they are read."""
    folder = config.get("class_lists")
    names = ("train", "validation", "val", "test")
    found = [Path(folder) / f"{name}.txt" for name in names] if folder else []
    return [file for file in found if file.is_file()]


def _stamp(config: Mapping[str, Any]) -> int:
    """Another number when a file of the pictures or of the lists is another."""
    path = Path(config["path"])
    if config["data"] == "folder":
        files = [path / name for names in class_folders(path).values() for name in names]
    else:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
    about = [(str(file), file.stat()) for file in [*files, *_lists(config)] if file.is_file()]
    return hash(tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in about))


@functools.lru_cache(maxsize=2)  # read for the identity of a run, and again for its tasks
def _pictures(
    changed: int,
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


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(OwnData)}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
