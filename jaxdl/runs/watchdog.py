"""A process that watches over one of several that train together.

If one of them dies or hangs, JAX ends the others in C++, which Python cannot catch. So the process
that the user starts is a watchdog: it starts the same command again as its child, which trains. It
passes signals and output on, and turns such an end into a sentence.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

VARIABLE = "JAXDL_WATCHDOG"
"""Holds the file descriptor by which a child hears from its watchdog, and when that has started."""
_began = time.time()

BEAT, SILENCE, HELD, GRACE = 2.0, 20.0, 5.0, 5.0
"""Seconds: between two signs of life, until a child ends without one, for which lines of C++ that
may announce its end are held back, and from an error to the end."""

CAUSE = (
    "another process of this run has died, hangs, or never came. End those that are left. The same"
    " command in all processes, started within 30 s, goes on from the last checkpoint"
)

# Errors of collectives and of JAX's coordination.
_LOST = re.compile("gloo|NCCL|connection (closed|reset|refused)|coordination", re.IGNORECASE)
# Lines of the logger of C++ that warn (W), tell of an error (E), or end the process (F).
_CPP = re.compile(rb"[WEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\]")


def is_child() -> bool:
    """Whether a watchdog has started this process. It then ends when the watchdog does."""
    global _began
    beats, _, began = os.environ.pop(VARIABLE, "").partition(" ")
    if not (beats.isdecimal() and began.isdecimal()):
        return False
    _began = float(began)
    threading.Thread(target=_end_after, args=[int(beats)], daemon=True).start()
    return True


def seconds() -> float:
    """Seconds since the command started, its watchdog included."""
    return time.time() - _began


def watch() -> int:
    """Runs the command of this process again, as a child, and returns its exit code.

    The code is 1, after a sentence, if a signal that this process did not pass on has ended it.
    """
    beats, sign = os.pipe()
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, VARIABLE: f"{beats} {_began:.0f}"},
        pass_fds=[beats],
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C reaches this process alone, which passes it on once
    )
    os.close(beats)
    passed: set[int] = set()

    def pass_on(number: int, frame: Any) -> None:
        del frame
        passed.add(number)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    with child:  # which waits for it, and closes the pipe
        held = _copy(child, sign)
    os.close(sign)
    code = child.returncode
    if code >= 0 or -code in passed:
        _write(held)
        return code if code >= 0 else 128 - code
    if code != -signal.SIGABRT:
        _write(held)
        _write(f"error: the process that trained was ended by {_name(-code)}\n".encode())
        return 1
    _write(f"error: {CAUSE}\n".encode())
    return 1


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Here a child trains. An error ends it soon, though JAX would wait for the others at its end.

    The error of a lost connection becomes a sentence. Any other one goes on its way first.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and _LOST.search(str(error)):
            _write(f"error: {CAUSE}\n".encode())
            os._exit(1)
        timer = threading.Timer(GRACE, os._exit, [getattr(error, "exit_code", 1)])
        timer.daemon = True
        timer.start()
        raise


def _copy(child: subprocess.Popen[bytes], sign: int) -> bytes:
    """Copies standard error of the child until it ends; returns what was held back at its end."""
    assert child.stderr is not None
    source, held, since = child.stderr.fileno(), b"", 0.0
    while True:
        with contextlib.suppress(OSError):
            os.write(sign, b".")
        ready, _, _ = select.select([source], [], [], BEAT)
        part = os.read(source, 2**16) if ready else b""
        if ready and not part:
            return held
        if held:
            part, held = b"", held + part
        elif found := _CPP.search(part):
            part, held, since = part[: found.start()], part[found.start() :], time.monotonic()
        if held and time.monotonic() - since > HELD:
            part, held = part + held, b""
        _write(part)


def _end_after(beats: int) -> None:
    """Ends this process when its watchdog has ended, or is silent."""
    while True:
        ready, _, _ = select.select([beats], [], [], SILENCE)
        if not ready or not os.read(beats, 2**16):
            os._exit(1)


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(2, text) :]


def _name(number: int) -> str:
    killed = ", perhaps for want of memory" * (number == signal.SIGKILL)
    return signal.Signals(number).name + killed
