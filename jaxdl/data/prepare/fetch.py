"""The publishers' files at hand or on the network, and a place to work on them."""

import fcntl
import hashlib
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxdl.data.prepare.sources import Source
from jaxdl.errors import InputError, RunError


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_files(
    source: Source, from_dir: Path, accept_checksum: bool
) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each of the publisher's files in `from_dir`, by name.

    Raises:
        InputError: naming the files that are not there; or those whose checksum is not the recorded
            one, unless `accept_checksum`.
    """
    absent = [file.name for file in source.files if not (from_dir / file.name).is_file()]
    if absent:
        raise InputError(
            f"{from_dir} has no {', '.join(absent)}: put there the files of {source.name} as "
            "published"
        )
    found = {
        file.name: ((from_dir / file.name).stat().st_size, _sha256(from_dir / file.name))
        for file in source.files
    }
    other = [
        f"{file.name} has sha256 {found[file.name][1]} where TFDS records {file.sha256}"
        for file in source.files
        if found[file.name][1] != file.sha256
    ]
    if other and not accept_checksum:
        raise InputError(
            f"in {from_dir} {'; '.join(other)}: fetch the original, or, if you trust the content, "
            "repeat it with `accept_checksum=True`, which counts the content instead"
        )
    return found


def check_network(source: Source, timeout: float = 4.0) -> None:
    """Asks the publisher's server for one header: TFDS alone would retry for minutes.

    Raises:
        InputError: if no answer came within `timeout` seconds, or the file is not there.
    """
    url = source.files[0].url
    failure: list[Exception | None] = [TimeoutError(f"no answer in {timeout:g} s")]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout):
                failure[0] = None
        except urllib.error.HTTPError as error:
            error.close()  # it is the response, too
            # A server that forbids HEAD may well answer GET.
            failure[0] = error if error.code in (404, 410) else None
        except (OSError, ValueError) as error:
            failure[0] = error

    # A thread, because looking up a name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if failure[0] is not None:
        files = " ".join(file.url for file in source.files)
        raise InputError(
            f"cannot reach {url} ({failure[0]}): fetch {files} on another machine, then run "
            f"`jaxdl prepare {source.name} --from DIR`"
        )


@contextmanager
def workspace(folder: Path, name: str) -> Iterator[Path]:
    """A folder inside `folder` (so that a rename moves things out of it) for one process at a time.

    It is deleted at the end; one that a killed process left is deleted at the start.

    Raises:
        RunError: if another process prepares data in the same `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".preparing.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process prepares data in {folder}: wait until it has finished"
            ) from error
        for left in folder.glob(".preparing-*"):
            shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(dir=folder, prefix=f".preparing-{name}-"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
