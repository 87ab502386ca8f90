"""Mistakes that deserve one clear sentence and no traceback.

The command line (`jaxdl.runs.cli.command_line`) prints the sentence and exits with `exit_code`.
"""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """The request is wrong: a flag, a shape, more ways than classes, data that is not there."""

    exit_code = 2


class RunError(RuntimeError):
    """The request is right but the run cannot go on: full disk, corrupt file, divergence."""

    exit_code = 1


CALLED = {
    "PIL": "pillow",
    "absl": "absl-py",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
"""What packages are called where their modules have other names."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Says what to install if the import of an optional dependency fails.

    Packages of the extras of `pyproject.toml` are imported where they are needed, in this:

        with extra("data"):
            from PIL import Image

    Args:
        name: the extra that the imported packages belong to.

    Raises:
        InputError: if a package, or one that it needs, is not installed or cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "a package").partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError)
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise InputError(
            f'{CALLED.get(module, module)} {why}. Install it: pip install "jaxdl[{name}]"'
        ) from error
