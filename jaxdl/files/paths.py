"""Paths that a person gives: as flags, as variables of the environment, as arguments."""

from pathlib import Path

from jaxdl.errors import InputError

LONGEST_PATH = 3800
"""Bytes of a path: a system call takes 4,095, and the files of a run have names below it."""


def whole_path(path: Path | str, field: str) -> Path:
    """The path, with `~` as the home of the user: after `=`, or in quotes, a shell keeps it.

    Args:
        field: how errors call it: the name of a flag or argument, or of a variable.

    >>> whole_path("runs", "runs_dir")
    PosixPath('runs')

    Raises:
        InputError: if no system call can take it, or Orbax cannot, which wants UTF-8.
    """
    path = Path(path)
    text = str(path)
    try:
        parts = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError as error:
        raise InputError(f"`{field}={text!r}` is not in UTF-8. Choose another path") from error
    if "\0" in text:
        raise InputError(f"`{field}={text[:40]!r}` has a zero byte. Choose another path")
    if max(parts, default=0) > 255 or sum(parts) + len(parts) > LONGEST_PATH:
        raise InputError(
            f"`{field}={text[:40]}...` is too long. Choose at most {LONGEST_PATH:,} bytes, and at"
            " most 255 per name"
        )
    try:
        return path.expanduser()
    except RuntimeError as error:  # of ~name
        raise InputError(
            f"`{field}={text}`: there is no such user. Choose a path that does not begin with ~"
        ) from error
