"""Standard output and standard error that a run outlives: a full disk or a closed terminal ends
what is shown, not what is computed."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Outlived:
    """A stream whose first failure is kept in `error`. What is written after it is lost.

    >>> class Full(io.StringIO):
    ...     def write(self, text):
    ...         raise OSError(28, "No space left on device")
    >>> stream = Outlived(Full())
    >>> print("text", file=stream)
    >>> str(stream.error)
    '[Errno 28] No space left on device'
    """

    def __init__(self, stream: TextIO, *, reader_may_go: bool = True) -> None:
        """With `reader_may_go=False`, a BrokenPipeError is raised as ever."""
        self.error: OSError | None = None
        self._stream = stream
        self._raised: tuple[type[OSError], ...] = () if reader_may_go else (BrokenPipeError,)

    def write(self, text: str) -> int:
        """Writes the text, or loses it."""
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or loses it."""
        with self._kept():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, self._raised):
                raise
            self.error = self.error or error
            with contextlib.suppress(OSError, io.UnsupportedOperation):
                discard(self._stream.fileno())


def discard(descriptor: int) -> None:
    """Lets a file descriptor lead nowhere. Python would fail again when it flushes at its end."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def outlived() -> Iterator[Outlived]:
    """Here both streams are `Outlived`; yields standard output.

    A stream that was closed from the start leads nowhere. Else the next file that is opened would
    take its descriptor, and warnings of C++ would be written into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free descriptor: this one
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        out = Outlived(sys.stdout or nowhere, reader_may_go=False)
        sys.stdout, sys.stderr = out, Outlived(sys.stderr or nowhere)
        try:
            yield out
        finally:
            sys.stdout, sys.stderr = before
