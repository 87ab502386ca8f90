"""The program that Python was started with: its file, and whether the text made an older run."""

import contextlib
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdl.runs.progress import say


def program() -> Path:
    """The file that Python was started with; a notebook has none, so its working folder."""
    started = getattr(sys.modules["__main__"], "__file__", None)
    return Path(started or ".").absolute()


def program_digest() -> str | None:
    """Twelve hexadecimal digits of the file that Python was started with; None for a notebook."""
    path = program()
    with contextlib.suppress(OSError):
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return None


def tell_other_program(directory: Path, made_by: Mapping[str, Any]) -> None:
    """Says that the text of the program is not the one that made the run, if so.

    It is no part of the identity, because a change of a picture makes no other run. A program of
    another name made none of it, and only reads.

    Args:
        made_by: the `provenance` of the process that last trained the run, or nothing.
    """
    before, now = made_by.get("program"), program_digest()
    same = f"{made_by.get('command')} ".startswith(f"{Path(sys.argv[0]).name} ")
    if same and before and now and before != now:
        say(
            f"{program().name} has changed since it made {directory}. What is stored there is of"
            " the older text: choose another `name=` to train anew"
        )
