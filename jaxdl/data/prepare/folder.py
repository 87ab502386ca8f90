"""The data folder on disk.

It is a TFDS data folder (`omniglot/3.0.0/...`) with one more folder, `arrays`, for the cached
arrays (`arrays/omniglot/3.0.0/area28.npz`). The arrays alone are enough to run.
"""

import os
from pathlib import Path

from jaxdl.data.prepare.sources import COME_ALONG, MADE_FROM, SOURCES, plain
from jaxdl.errors import InputError
from jaxdl.files.paths import whole_path

PathLike = str | os.PathLike[str]
FORMAT = "array_record"
"""TFDS's file format. TFDS's parquet silently loses rows, and its other formats need TensorFlow."""


def data_folder(data_dir: PathLike | None = None) -> Path:
    """The data folder: `data_dir`, else `$JAXDL_DATA`, else `jaxdl/data` in the cache folder.

    The cache folder is `$XDG_CACHE_HOME`, else `~/.cache`.

    Raises:
        InputError: if the path exists and is not a folder, or as `whole_path`.
    """
    places = {"data_dir": data_dir, "JAXDL_DATA": os.environ.get("JAXDL_DATA")}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    places["XDG_CACHE_HOME"] = cache / "jaxdl" / "data"
    name, place = next((name, place) for name, place in places.items() if place)
    folder = whole_path(Path(place), name)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the data folder {folder} is a file. Let `data_dir=` name a folder")
    return folder


def version_key(version: str) -> tuple[int, ...]:
    """`"3.0.10"` -> `(3, 0, 10)`; a text that is not a version -> `()`, which sorts first."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(map(str.isdigit, parts)) else ()


def versions(folder: Path) -> list[str]:
    """The versions in `folder`, oldest first."""
    found = [path.name for path in folder.glob("*.*.*") if path.is_dir() and version_key(path.name)]
    return sorted(found, key=version_key)


def missing(name: str, folder: Path) -> InputError:
    """The error for a missing data set; it says how to get it."""
    called = name.partition(":")[0]
    source = SOURCES.get(called)
    if plain(called) in MADE_FROM:
        needed = MADE_FROM[plain(called)]
        return InputError(
            f"{called} is made from {needed} and has no files of its own. Run `jaxdl prepare"
            f" {needed}` once, then load {needed}, or call the function of jaxdl.data for {called}"
        )
    if plain(called) in COME_ALONG:
        return InputError(
            f"{called} comes with scikit-learn and has no files of its own. Call"
            f" {COME_ALONG[plain(called)]}"
        )
    if source is None:
        return InputError(
            f"{name} is not prepared in {folder}. `jaxdl prepare` makes {', '.join(SOURCES)}; for"
            " other sets in the catalogue of TFDS, run "
            f"`tfds build {name} --file_format={FORMAT} --data_dir={folder}` "
            "(most sets need `pip install tensorflow` to be built, but not to be read)"
        )
    files = ", ".join(file.name for file in source.files)
    return InputError(
        f"{source.name} is not in {folder}. Run `jaxdl prepare {source.name}` with a network, or "
        f"`jaxdl prepare {source.name} --from DIR` where DIR holds {files}, or let `data_dir=` or "
        "JAXDL_DATA name a folder that has it"
    )


def find(name: str, folder: Path) -> tuple[str, str]:
    """Resolves `"set"`, `"set/config"` or `"set/config:1.2.3"` to (`"set/config"`, version).

    Without a version, it takes the highest one that is prepared or cached in `folder`.

    Raises:
        InputError: if the set is neither prepared nor cached; the message says how to get it.
    """
    path, _, wanted = name.partition(":")
    found = versions(folder / path) + versions(folder / "arrays" / path)
    if not found or (wanted and wanted not in found):
        raise missing(name, folder)
    return path, wanted or max(found, key=version_key)
