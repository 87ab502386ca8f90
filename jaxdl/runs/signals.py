"""Ctrl-C and SIGTERM stop a run at a point where nothing is lost."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the text says what was saved and how to go on.

    It is a KeyboardInterrupt, so that no `except Exception` catches it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # the shell's convention


class Signals:
    """Handles signals: notes them inside `deferred`, raises `Interrupted` elsewhere.

    A second signal always raises at once.
    """

    def __init__(self) -> None:
        self._number = 0
        self._depth = 0

    @property
    def came(self) -> bool:
        """Whether a signal came and is not yet handled."""
        return self._number != 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only notes signals while open; the code inside must check `came`."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def handle(self, number: int, frame: Any) -> None:
        """The handler for `signal.signal`."""
        del frame
        impatient, self._number = self.came, number
        if impatient or not self._depth:
            raise self.interrupted("the same command goes on from the last checkpoint")
        # Not print: the signal may have interrupted a print, and a stream is not re-entrant.
        os.write(2, b"stopping after this chunk; send the signal again to stop at once\n")

    def interrupted(self, what: str) -> Interrupted:
        """The exception for a signal that came here or in another process."""
        number = self._number or signal.SIGTERM
        return Interrupted(f"stopped by {signal.Signals(number).name}: {what}", number)


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catches SIGINT and SIGTERM, except a signal that is ignored (`nohup`, `&` in scripts)."""
    signals, before = Signals(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            before[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
