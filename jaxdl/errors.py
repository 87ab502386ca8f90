"""Errors that show a clear message and no traceback.

The command line (`jaxdl.runs.cli.command_line`) prints the message and exits with `exit_code`.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any


class InputError(ValueError):
    """The request is wrong: a flag, a shape, more ways than classes, missing data.

    It is a `ValueError`. Its text has two sentences: what is wrong, and what to do. `command_line`
    prints only the text and exits with 2.

    >>> import jaxdl
    >>> try:
    ...     jaxdl.mlp([8, 0])
    ... except jaxdl.InputError as error:
    ...     print(error)
    mlp cannot have the widths [8, 0]. Give widths of at least 1
    """

    exit_code = 2

    def __init__(self, text: object = "") -> None:
        super().__init__(shown(text))


class TooLarge(InputError):
    """What does not fit into memory. `command_line` names the flags to lower, in place of `cure`.

    >>> error = TooLarge("the net needs 9 GiB, and 8 GiB are free", "Take a smaller net")
    >>> print(error)
    the net needs 9 GiB, and 8 GiB are free. Take a smaller net
    >>> error.fault
    'the net needs 9 GiB, and 8 GiB are free'
    """

    def __init__(self, fault: str, cure: str) -> None:
        super().__init__(f"{fault}. {cure}")
        self.fault = fault


class RunError(RuntimeError):
    """The request is right, but the run cannot go on: full disk, corrupt file, divergence.

    It is a `RuntimeError`. Your own code may raise it: `command_line` prints only the text and
    exits with 1.

    >>> import jaxdl
    >>> def check_loss(loss):
    ...     if not loss < 1e6:  # NaN too
    ...         raise jaxdl.RunError(f"the loss is {loss}. Try a smaller lr")
    >>> check_loss(0.3)
    >>> check_loss(float("nan"))
    Traceback (most recent call last):
    jaxdl.errors.RunError: the loss is nan. Try a smaller lr
    """

    exit_code = 1

    def __init__(self, text: object = "") -> None:
        super().__init__(shown(text))


CALLED = {
    "PIL": "pillow",
    "absl": "absl-py",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
"""The package names of modules with another name."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Says what to install if the import of an optional dependency fails.

    Import a package of an extra of `pyproject.toml` where it is needed, inside this:

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


def shown(text: object) -> str:
    """A text without what would act on a terminal, such as the name of a file has. Lines stay.

    >>> shown("a\\x1b[31m\\nb").split("\\n")
    ['a\\\\x1b[31m', 'b']
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def in_short(words: object, most: int = 160) -> str:
    """What a file or another library says, on one line that a terminal can show.

    >>> in_short("a\\x1b[31m\\nb"), in_short("x" * 500, most=9)
    ('a\\\\x1b[31m\\\\nb', 'xxxxxxxxx...')
    """
    text = shown(words).replace("\n", "\\n")
    return text if len(text) <= most else f"{text[:most]}..."


def damaged(path: object, fault: str, cure: str = "Correct the file") -> RunError:
    """The error about a stored file that does not hold what it must.

    >>> damaged("config.yaml", "learner is 3")
    RunError('config.yaml is damaged: learner is 3. Correct the file')
    """
    return RunError(f"{path} is damaged: {fault}. {cure}")


@contextlib.contextmanager
def content_of(path: object, cure: str) -> Iterator[None]:
    """Says what is wrong with a stored file, if a value of it is missing or of another kind.

    The file can be read, so only its use shows the fault. Use its values inside, and nothing else,
    because an error of the code would be told as one of the file.

    Args:
        cure: what to do, a sentence.

    >>> with content_of("result.json", "Move it away to go on"):
    ...     {}["loss"]
    Traceback (most recent call last):
    jaxdl.errors.RunError: result.json is damaged: it has no 'loss'. Move it away to go on

    Raises:
        RunError: naming the file and the fault.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise damaged(path, in_short(" ".join(why.split())), cure) from error


def takes(function: Callable[..., Any] | None, count: int, keywords: dict[str, Any]) -> bool:
    """Whether a function can be called with `count` arguments by position and these keywords."""
    if function is None:
        return False
    try:
        inspect.signature(function).bind(*[None] * count, **keywords)
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        return True
    return True


def arguments_of(function: Any) -> str:
    """The arguments of a function, for people; those of what has none are its type."""
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return type(function).__name__
