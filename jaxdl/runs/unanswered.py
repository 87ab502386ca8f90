"""A second signal ends a process whose main thread does not answer the first.

Python runs the handler of a signal in the main thread, between two of its own instructions. A main
thread that waits for the compiler or for a program on a device reaches none for a long time, or
never. But Python writes the number of each signal into a pipe at once, and here another thread
reads it.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE = 2.0
"""Seconds that the main thread has for its answer."""


_sinks: list[int] = []
"""The ends of the open pipes into which Python writes, the innermost last."""


@contextlib.contextmanager
def ended_if_unanswered(
    handle: Callable[..., None],
    answered: Callable[[], float],
    tell: Callable[[str], None],
    what: str,
) -> Iterator[None]:
    """While open, a second signal that the main thread does not answer ends the process.

    Inside another one it takes the other's place. It does nothing outside the main thread, nor
    where somebody else reads the numbers of signals, such as `asyncio`, nor for a signal that has
    got another handler.

    Args:
        handle: the handler of the signals, which runs in the main thread.
        answered: when the handler last ran, by `time.monotonic`.
        tell: writes a line. It is called by another thread.
        what: said after "stopped by SIGTERM at once: ".
    """
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    try:
        before = signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        before = None
    watches = before == (_sinks[-1] if _sinks else -1)
    if watches:
        _sinks.append(sink)
        of_thread = (source, handle, answered, tell, what)
        threading.Thread(target=_watch, args=of_thread, daemon=True).start()
    else:
        os.close(source)
        if before is not None:
            signal.set_wakeup_fd(before)
    try:
        yield
    finally:
        if sink in _sinks and before is not None:  # not so in a process that was forked inside
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            _sinks.remove(sink)
        os.close(sink)  # which ends the thread


def _watch(
    source: int,
    handle: Callable[..., None],
    answered: Callable[[], float],
    tell: Callable[[str], None],
    what: str,
) -> None:
    told = math.inf  # when it was said that the signal waits
    with open(source, "rb", buffering=0) as numbers:
        while byte := numbers.read(1):
            number = byte[0]
            if number not in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != handle:
                continue
            silent = _is_silent(answered)
            if silent and answered() < told < math.inf:
                tell(f"stopped by {signal.Signals(number).name} at once: {what}")
                os._exit(128 + number)
            if silent:
                tell(
                    "the signal waits for the compiler or for a program on a device; send it again"
                    " to end at once"
                )
            told = time.monotonic() if silent else math.inf


def _is_silent(answered: Callable[[], float]) -> bool:
    """Whether the handler has not run by the end of our patience."""
    came = time.monotonic()
    while time.monotonic() < came + PATIENCE:
        if answered() > came - PATIENCE / 2:  # it may have run before this thread woke up
            return False
        time.sleep(0.02)
    return True


def _forget() -> None:
    """A forked process has signals of its own, which must not count in this one."""
    if _sinks:
        signal.set_wakeup_fd(-1)
        _sinks.clear()


os.register_at_fork(after_in_child=_forget)
