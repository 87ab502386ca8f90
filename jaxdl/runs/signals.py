"""Ctrl-C and SIGTERM stop a run at a point where nothing is lost."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from jaxdl.runs.unanswered import ended_if_unanswered

GO_ON = "the same command goes on from the last checkpoint"


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the text says what was saved and how to go on.

    It is a KeyboardInterrupt, so that no `except Exception` catches it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # the shell's convention


class Signals:
    """Handles signals: notes them inside `deferred`, raises `Interrupted` elsewhere.

    A second signal always raises at once. Python swallows what is raised inside a callback of the
    garbage collector. So the signal is noted in any case, and `look` raises again. `answered` is
    when a signal was last handled, by `time.monotonic`.
    """

    def __init__(self, what: str = GO_ON) -> None:
        """`what` is said after "stopped by SIGINT: "."""
        self._what = what
        self._number = 0
        self._depth = 0
        self.answered = -float("inf")

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
        self.answered = time.monotonic()
        impatient, self._number = self.came, number
        if impatient or not self._depth:
            raise self.interrupted(self._what)
        _tell("stopping after this chunk; send the signal again to stop at once")

    def look(self) -> None:
        """Raises Interrupted if a signal came, except inside `deferred`."""
        if self.came and not self._depth:
            raise self.interrupted(self._what)

    def interrupted(self, what: str) -> Interrupted:
        """The exception for a signal that came here or in another process."""
        number = self._number or signal.SIGTERM
        return Interrupted(f"stopped by {signal.Signals(number).name}: {what}", number)


@contextlib.contextmanager
def caught_signals(what: str = GO_ON) -> Iterator[Signals]:
    """Catches SIGINT and SIGTERM, except a signal that is ignored (`nohup`, `&` in scripts).

    Args:
        what: as of `Signals`.

    Raises:
        Interrupted: if a signal has come to the `Signals` that caught them until now.
    """
    signals, before = Signals(what), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is signal.SIG_IGN:
            continue
        earlier = getattr(handler, "__self__", None)
        if isinstance(earlier, Signals):
            earlier.look()
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            before[number] = signal.signal(number, signals.handle)
    try:
        with ended_if_unanswered(signals.handle, lambda: signals.answered, _tell, what):
            yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_at_ctrl_c() -> None:
    """From here to `caught_signals`, Ctrl-C ends the process at once, with a sentence.

    Call it before the imports of a process. They take seconds, and a KeyboardInterrupt among them
    ends in a traceback, or is swallowed. A shell may have blocked the signal until then.
    """

    def end(number: int, frame: Any) -> None:
        del frame
        _tell("stopped by SIGINT: nothing was begun")
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _tell(line: str) -> None:
    # Not print: the signal may have interrupted a print, and a stream is not re-entrant.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
