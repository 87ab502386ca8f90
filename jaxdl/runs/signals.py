"""Ctrl-C and SIGTERM, answered where nothing is lost by it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; its text says what was saved and how to go on.

    A KeyboardInterrupt, because it may be raised anywhere and no `except Exception` may swallow it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # the shell's convention


class Signals:
    """The signals that came: noted inside `deferred`, raised as `Interrupted` elsewhere.

    A second signal is always raised at once.
    """

    def __init__(self) -> None:
        self._number = 0
        self._depth = 0

    @property
    def came(self) -> bool:
        """Whether a signal waits for an answer."""
        return self._number != 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While this is open, whoever opened it asks `came` at convenient moments."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def handle(self, number: int, frame: Any) -> None:
        """The handler, see `signal.signal`."""
        del frame
        impatient, self._number = self.came, number
        if impatient or not self._depth:
            raise self.interrupted("the same command goes on from the last checkpoint")
        # Not print: the signal may have come in the middle of one, and a stream is not re-entrant.
        os.write(2, b"stopping after this chunk; once more to stop at once\n")

    def interrupted(self, what: str) -> Interrupted:
        """The exception to raise for the signal that came, here or in another process."""
        number = self._number or signal.SIGTERM
        return Interrupted(f"stopped by {signal.Signals(number).name}: {what}", number)


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catches SIGINT and SIGTERM; leaves alone those that are ignored (`nohup`, `&` in scripts)."""
    signals, before = Signals(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            before[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
