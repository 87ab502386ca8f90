"""The command `jaxdl`, its list of commands, and the ways out of it."""

import signal
import subprocess
import sys

import pytest

from jaxdl import __version__
from jaxdl.recipes import command

LIST = (
    "Commands (jaxdl NAME --help lists the flags of one):\n"
    "  prepare   Prepares MNIST, CIFAR-10, CIFAR-100 or Omniglot, once.\n"
    "  compare   Compares the learners of runs of few_shot on test episodes that all have met.\n"
    "  classify  Classifies your own pictures by a run of few_shot.\n"
    "  new       Writes a learner that works, to be changed, with a test to be filled in.\n"
)

NONE = (
    'error: there is no command "prepaer". Experiments such as few_shot are not installed: run'
    " `scripts/run NAME` in a clone\n"
)


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--help"], 0, LIST, ""),
        (["-h"], 0, LIST, ""),
        (["help"], 0, LIST, ""),
        (["--version"], 0, f"{__version__}\n", ""),
        ([], 2, "", LIST),
        (["prepaer", "mnist"], 2, "", NONE + LIST),
    ],
)
def test_what_is_no_command_is_answered_with_the_list(capsys, arguments, code, out, err):
    assert command.main(arguments) == code
    assert capsys.readouterr() == (out, err)


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch, capsys):
    monkeypatch.setitem(command.COMMANDS, "echo", lambda arguments: print(arguments) or 7)
    assert command.main(["echo", "a", "--help", "b c"]) == 7
    assert capsys.readouterr().out == "['a', '--help', 'b c']\n"
    monkeypatch.setattr(sys, "argv", ["/bin/jaxdl", "echo", "d"])
    assert command.main() == 7
    assert capsys.readouterr().out == "['d']\n"


def test_prepare_is_the_recipe_of_that_name(capsys, tmp_path):
    assert command.main(["prepare", "imagenet", "--data-dir", str(tmp_path)]) == 2
    assert "tfds build imagenet" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["prepare", "--help"]])
def test_help_comes_without_the_heavy_packages(arguments):
    script = (
        "import atexit, sys\n"
        "heavy = ('jax', 'tensorflow_datasets', 'PIL', 'grain', 'sklearn')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        f"sys.argv[1:] = {arguments}\n"
        "from jaxdl.recipes.command import program\n"
        "program()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "prepare" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_terminated_process_cleans_up():
    """Ends by an exception, not by the signal itself: what is open is closed."""
    script = (
        "import os, signal\n"
        "from jaxdl.recipes import command\n"
        "def stopped(arguments):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "command.COMMANDS['stopped'] = stopped\n"
        "import sys; sys.argv[1:] = ['stopped']\n"
        "command.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "cleaned up\n"), done.stderr


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "jaxdl.recipes.command", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == LIST
