"""The watchdog of a process that trains with others: how both end when another one ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdl.runs import watchdog

ROOT = Path(__file__).resolve().parents[2]
FATAL = "F1129 12:00:00.123456   10214 client.h:80] Terminating process because"
CHILD = """
import os, signal, sys, time
from jaxdl.runs import watchdog
if not watchdog.is_child():
    sys.exit(watchdog.watch())
folder, how = sys.argv[1:]
open(folder + "/pid", "w").write(str(os.getpid()))
print("a line of the log", file=sys.stderr, flush=True)
"""
ENDS = {
    "abort": f"print({FATAL!r}, file=sys.stderr, flush=True); os.abort()",
    "exit": "print('error: mine', file=sys.stderr, flush=True); sys.exit(7)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "warns": f"print({FATAL!r}.replace('F', 'W', 1), file=sys.stderr, flush=True); time.sleep(60)",
    "caught": "signal.signal(15, lambda *_: sys.exit(143)); time.sleep(60)",
    "waits": "time.sleep(60)",
}


def start(tmp_path, how):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + ENDS[how], str(tmp_path), how],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def pid_of_child(tmp_path):
    """The process that the watchdog has started, once it says so."""
    for _ in range(200):
        if (tmp_path / "pid").exists() and (text := (tmp_path / "pid").read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("there is no child")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("abort", 1, f"a line of the log\nerror: {watchdog.CAUSE}\n"),
        ("exit", 7, "a line of the log\nerror: mine\n"),
        (
            "killed",
            1,
            "a line of the log\nerror: the process that trained was ended by SIGKILL, perhaps for"
            " want of memory\n",
        ),
    ],
)
def test_the_end_of_the_child_is_told(tmp_path, how, code, says):
    """What C++ writes before it aborts is not shown."""
    _, text = (process := start(tmp_path, how)).communicate(timeout=30)
    assert (process.returncode, text) == (code, says)


@pytest.mark.parametrize(("how", "code"), [("caught", 143), ("waits", 143)])
def test_a_signal_is_passed_on(tmp_path, how, code):
    process = start(tmp_path, how)
    pid = pid_of_child(tmp_path)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=30)
    assert (process.returncode, text) == (code, "a line of the log\n")
    assert not runs(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_ends_with_its_watchdog(tmp_path, number):
    """Killed, or stopped for longer than it may be silent."""
    code = CHILD.replace("if not", "watchdog.SILENCE, watchdog.BEAT = 0.5, 0.05\nif not", 1)
    process = subprocess.Popen(
        [sys.executable, "-c", code + ENDS["waits"], str(tmp_path), "waits"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    pid = pid_of_child(tmp_path)
    time.sleep(0.8)
    assert runs(pid), "it ended though its watchdog lives"
    process.send_signal(number)
    for _ in range(100):
        if not runs(pid):
            break
        time.sleep(0.1)
    assert not runs(pid)
    process.kill()
    process.communicate()


def test_a_warning_of_cpp_is_shown_a_little_later(tmp_path):
    code = CHILD.replace("if not", "watchdog.HELD, watchdog.BEAT = 0.2, 0.05\nif not", 1)
    process = subprocess.Popen(
        [sys.executable, "-c", code + ENDS["warns"], str(tmp_path), "warns"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stderr.readline() for _ in range(2)]
    process.kill()
    process.communicate()
    assert lines[1].startswith("W1129 12:00:00.123456")


# ---- two processes that train


def launch(folder, index, port, *flags, host="localhost"):
    command = [sys.executable, "-P", "-m", "experiments.sinusoid", "--tasks", "26", *flags]
    command += ["--steps", "2000000", "--name", "x", "--runs-dir", str(folder), "--processes", "2"]
    command += ["--coordinator", f"{host}:{port}", "--process", str(index)]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    environment |= {"PYTHONPATH": str(ROOT), "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*command, "--save-minutes", "0.02"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def ended(process):
    """Within a minute, with the sentence as the last line, and no traceback."""
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert text.splitlines()[-1] == f"error: {watchdog.CAUSE}"
    assert "Traceback" not in text
    assert "*** Check failure" not in text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_if_one_of_two_dies_or_hangs_the_other_ends_with_a_sentence(tmp_path, victim, number):
    """And the run goes on from its checkpoint, in both processes."""
    port = free_port()
    both = [launch(tmp_path, index, port) for index in (0, 1)]
    for _ in range(600):
        if any(path.name.isdecimal() for path in tmp_path.glob("sinusoid/x/checkpoints/*")):
            break
        time.sleep(0.1)
    both[victim].send_signal(number)
    ended(both[1 - victim])
    both[victim].kill()
    both[victim].communicate()

    port = free_port()
    both = [launch(tmp_path, index, port) for index in (0, 1)]
    lines = list(iter(lambda: both[0].stderr.readline()[:5], "step "))
    assert "resum" in lines
    for process in both:
        process.send_signal(signal.SIGTERM)
    for process in both:
        process.communicate(timeout=60)
        assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_lone_process_ends_with_a_sentence(tmp_path, index):
    ended(launch(tmp_path, index, free_port()))


@pytest.mark.slow
def test_a_coordinator_that_cannot_be_reached_ends_with_a_sentence(tmp_path):
    """192.0.2.0/24 is reserved for documents, so no machine has the address."""
    ended(launch(tmp_path, 1, free_port(), host="192.0.2.1"))
