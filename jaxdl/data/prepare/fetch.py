"""Checks the publishers' files in a folder or on the network, and gives a working folder."""

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
    """The size and sha256 of each of the publisher's files in `from_dir`, by name.

    Raises:
        InputError: naming the missing files; or the files with another checksum than the recorded
            one, unless `accept_checksum`.
    """
    absent = [file.name for file in source.files if not (from_dir / file.name).is_file()]
    if absent:
        raise InputError(
            f"{from_dir} has no {', '.join(absent)}. Put the published files of {source.name} there"
        )
    found = {
        file.name: ((from_dir / file.name).stat().st_size, _sha256(from_dir / file.name))
        for file in source.files
    }
    other = [
        f"{file.name} has sha256 {found[file.name][1]}, but TFDS records {file.sha256}"
        for file in source.files
        if found[file.name][1] != file.sha256
    ]
    if other and not accept_checksum:
        raise InputError(
            f"in {from_dir} {'; '.join(other)}. Fetch the original, or, if you trust the content, "
            "repeat it with `accept_checksum=True`, which counts the examples instead"
        )
    return found


def check_network(source: Source, timeout: float = 4.0) -> None:
    """Asks the publisher's server for one header, because TFDS alone would retry for minutes.

    Raises:
        InputError: if there is no answer within `timeout` seconds, or the file does not exist.
    """
    url = source.files[0].url
    failure: list[Exception | None] = [TimeoutError(f"no answer in {timeout:g} s")]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout):
                failure[0] = None
        except urllib.error.HTTPError as error:
            error.close()  # the error is the response too
            # A server that forbids HEAD may allow GET.
            failure[0] = error if error.code in (404, 410) else None
        except (OSError, ValueError) as error:
            failure[0] = error

    # A thread, because the lookup of a host name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if failure[0] is not None:
        files = " ".join(file.url for file in source.files)
        raise InputError(
            f"cannot reach {url} ({failure[0]}). Fetch {files} on another machine, then run "
            f"`jaxdl prepare {source.name} --from DIR`"
        )


@contextmanager
def workspace(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder inside `folder`, for one process at a time.

    It lies inside, so that a rename can move files out of it. It is deleted at the end. Folders
    that killed processes left are deleted at the start.

    Raises:
        RunError: if another process prepares data in the same `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".preparing.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process prepares data in {folder}. Wait until it has finished"
            ) from error
        for left in folder.glob(".preparing-*"):
            shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(dir=folder, prefix=f".preparing-{name}-"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
