"""Prepares MNIST, CIFAR-10, CIFAR-100 or Omniglot: `jaxdl prepare omniglot --from DIR`."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jaxdl.data.prepare import tfds
from jaxdl.data.prepare.folder import data_folder, missing
from jaxdl.data.prepare.sources import COME_ALONG, MADE_FROM, SOURCES, Source, plain
from jaxdl.data.sets import digits, images
from jaxdl.errors import InputError, RunError, extra
from jaxdl.runs.flags import in_flags

FLAGS = {
    "accept_checksum": "--accept-checksum",
    "data_dir": "--data-dir",
    "from_dir": "--from",
}
"""The flag of this command for each argument that messages name."""


def prepare(
    source: Source,
    *,
    data_dir: Path | None = None,
    from_dir: Path | None = None,
    accept_checksum: bool = False,
) -> None:
    """Prepares `source` in the data folder. It does nothing if the source is prepared already.

    Raises:
        InputError, RunError: as `jaxdl.data.prepare.tfds.prepare`.
    """
    start, folder = time.monotonic(), data_folder(data_dir)
    place = folder / source.name / source.version
    if place.is_dir():
        images.cache_all(source.name, folder)
        print(f"{source.name} is ready in {place} (delete that folder to prepare it anew)")
        return
    tfds.prepare(
        source,
        folder,
        from_dir=from_dir,
        accept_checksum=accept_checksum,
        finish=lambda work: images.cache_all(source.name, work),
        say=lambda line: print(f"{source.name}: {line}", flush=True),
    )
    print(f"{source.name} is ready in {place} after {time.monotonic() - start:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code."""
    try:
        _prepare_by_name(_parsed(arguments))
    except (InputError, RunError) as error:
        print(f"error: {in_flags(str(error), FLAGS)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot write the data folder: {error}", file=sys.stderr)
        return RunError.exit_code
    except KeyboardInterrupt:
        print("stopped; nothing was installed", file=sys.stderr)
        return 130
    return 0


def _parsed(arguments: Sequence[str] | None) -> Any:
    """The flags, checked by tyro."""
    with extra("cli"):
        import tyro

    @dataclass(frozen=True)
    class Arguments:
        """Prepare an image set once, so that experiments load it in a second."""

        name: Annotated[str, tyro.conf.Positional]
        """mnist, cifar10, cifar100 or omniglot. cifar_fs and fc100 are made from cifar100."""
        from_dir: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR")] = None
        """Folder with the publisher's files. By default they are downloaded."""
        accept_checksum: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        """Accept files with another checksum, and count their examples instead."""
        data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
        """The data folder. By default $JAXDL_DATA, or else jaxdl/data in the cache folder."""

    return tyro.cli(Arguments, args=arguments, prog="jaxdl prepare")


def _prepare_by_name(flags: Any) -> None:
    """Prepares the source of the data set with this name.

    Raises:
        InputError: if there is no such set, or as `prepare`.
        RunError: as `prepare`.
    """
    name = plain(flags.name)
    if name in COME_ALONG:
        digits.all_drawings()  # raises where scikit-learn is missing
        print(f"{flags.name} is ready: its drawings come with scikit-learn")
        return
    source = SOURCES.get(MADE_FROM.get(name, name))
    if source is None:
        raise missing(flags.name, data_folder(flags.data_dir))
    if source.name != name:
        print(f"{flags.name} is made from {source.name}: preparing {source.name}", flush=True)
    prepare(
        source,
        data_dir=flags.data_dir,
        from_dir=flags.from_dir,
        accept_checksum=flags.accept_checksum,
    )
