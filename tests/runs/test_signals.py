"""A signal is never lost: neither among imports nor inside a callback that swallows it."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl.runs.signals import Interrupted, caught_signals
from tests import tiny_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def swallowed(monkeypatch):
    """Sends a signal inside a callback of the garbage collector, where Python swallows it."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    def send(number=signal.SIGINT):
        def callback(phase, _):
            if phase == "start":
                gc.callbacks.remove(callback)
                os.kill(os.getpid(), number)

        gc.callbacks.append(callback)
        gc.collect()

    return send


def test_a_signal_that_was_swallowed_is_raised_at_the_next_look(swallowed):
    with caught_signals() as signals:
        swallowed()
        with signals.deferred():
            signals.look()  # the code in there saves first
        with pytest.raises(Interrupted, match="stopped by SIGINT: the same command goes on"):
            signals.look()


def test_a_signal_that_was_swallowed_before_a_run_stops_it(swallowed, tmp_path):
    with caught_signals(what="nothing was begun"):
        swallowed(signal.SIGTERM)
        with pytest.raises(Interrupted, match="stopped by SIGTERM: nothing was begun"):
            tiny_run.train(tiny_run.config(tmp_path))


def test_a_signal_that_was_swallowed_in_a_test_stops_the_run(swallowed, tmp_path):
    """Tests and evaluations outside of the loop end with pictures or log lines."""
    with tiny_run.open_run("tiny", tiny_run.config(tmp_path)) as run:
        swallowed()
        with pytest.raises(Interrupted, match="goes on from the last checkpoint"):
            run.log(1, "test", {"loss": 1.0})


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )


def test_ctrl_c_among_the_imports_of_a_process_ends_in_a_sentence():
    done = python(
        "import os, signal, time\n"
        "from jaxdl.runs.signals import end_at_ctrl_c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "end_at_ctrl_c()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(9)\n"
    )
    assert (done.returncode, done.stderr) == (130, "stopped by SIGINT: nothing was begun\n")


def test_ctrl_c_that_a_shell_held_back_is_answered_there():
    done = python(
        "import os, signal, time\n"
        "from jaxdl.runs.signals import end_at_ctrl_c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.1)\n"
        "end_at_ctrl_c()\n"
        "time.sleep(9)\n"
    )
    assert (done.returncode, done.stderr) == (130, "stopped by SIGINT: nothing was begun\n")


@pytest.mark.parametrize(("name", "ends"), [("-m", True), ("few_shot.py", False)])
def test_it_ends_only_a_process_that_runs_an_experiment(name, ends):
    done = python(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv[0] = {name!r}\n"
        "import experiments\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "assert 'jax' not in sys.modules\n"
    )
    assert (done.returncode, done.stdout) == (0, f"{not ends}\n")


WAITS = """
import jax, threading
from jaxdl.runs.signals import caught_signals
with caught_signals("nothing was begun"), caught_signals():
    lasts = jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, x: x * 0.5 + i, 0.0))
    lasts(3).block_until_ready()
    threading.Timer(1, print, ["ready"], {"flush": True}).start()  # when the program runs
    lasts(2_000_000_000).block_until_ready()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_that_waits_for_a_program(number):
    """It cannot answer: Python handles signals between two of its own instructions."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WAITS], cwd=ROOT, **pipes) as waits:
        assert waits.stdout.readline() == "ready\n"
        waits.send_signal(number)
        line = waits.stderr.readline()
        waits.send_signal(number)
        rest, name = waits.communicate(timeout=60)[1], signal.Signals(number).name
    assert line.startswith("the signal waits for the compiler or for a program on a device; send")
    assert rest == f"stopped by {name} at once: the same command goes on from the last checkpoint\n"
    assert waits.returncode == 128 + number


def test_signals_that_are_answered_do_not_end_a_process():
    done = python(
        "import os, signal, time\n"
        "from jaxdl.runs import unanswered\n"
        "from jaxdl.runs.signals import Interrupted, caught_signals\n"
        "unanswered.PATIENCE = 0.2\n"
        "with caught_signals() as signals, signals.deferred():\n"
        "    for _ in range(3):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        except Interrupted:\n"
        "            print('raised')\n"
        "        time.sleep(0.5)\n"
        "print(signal.set_wakeup_fd(-1), unanswered._sinks)\n"
    )
    said = "stopping after this chunk; send the signal again to stop at once\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised\nraised\n-1 []\n", said)


def test_a_signal_that_is_answered_late_is_no_first_of_two():
    """The main thread answered it after the warning, and waits for something else now."""
    done = python(
        "import hashlib, os, signal, threading\n"
        "from jaxdl.runs import unanswered\n"
        "from jaxdl.runs.signals import Interrupted, caught_signals\n"
        "unanswered.PATIENCE = 0.2\n"
        "def busy():\n"
        "    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 5_000_000)  # it hears no signal\n"
        "with caught_signals() as signals, signals.deferred():\n"
        "    busy()\n"
        "    try:\n"
        "        busy()\n"
        "        signals.look()\n"
        "    except Interrupted:\n"
        "        print('raised')\n"
    )
    assert (done.returncode, done.stdout) == (0, "raised\n")
    assert done.stderr.count("the signal waits for the compiler or for a program") == 2


def test_signals_of_a_forked_process_do_not_count():
    done = python(
        "import contextlib, os, signal, time, warnings\n"
        "warnings.simplefilter('ignore')  # Python 3.12 advises against a fork beside threads\n"
        "from jaxdl.runs import unanswered\n"
        "from jaxdl.runs.signals import caught_signals\n"
        "unanswered.PATIENCE = 0.2\n"
        "with contextlib.ExitStack() as stack:\n"
        "    stack.enter_context(caught_signals())\n"
        "    if child := os.fork():\n"
        "        os.waitpid(child, 0)\n"
        "        time.sleep(0.5)\n"
        "    else:\n"
        "        stack.close()\n"
        "        signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(0)\n"
        "print('here')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


def test_a_handler_of_the_users_own_is_left_alone():
    done = python(
        "import os, signal, time\n"
        "from jaxdl.runs import unanswered\n"
        "from jaxdl.runs.signals import caught_signals\n"
        "unanswered.PATIENCE = 0.2\n"
        "with caught_signals():\n"
        "    signal.signal(signal.SIGTERM, lambda *_: print('answered'))\n"
        "    for _ in range(3):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.5)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 3 * "answered\n", "")
