"""The command line: what reaches `main`, and what each way out of it looks like."""

import dataclasses
import inspect
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import jax
import pytest

from jaxdl.errors import InputError, RunError, TooLarge
from jaxdl.runs import cli
from jaxdl.runs.config import RunFlags
from jaxdl.runs.flags import flags_of, in_flags
from jaxdl.runs.signals import Interrupted
from jaxdl.runs.sizes import largest
from jaxdl.runs.supervise import Diverged

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    """How many."""
    kind: Literal["a", "b"] = "a"
    rate: float = 0.5


PRESETS = {"small": Config(), "large": Config(steps=100, kind="b")}


@pytest.fixture
def run(monkeypatch):
    """Runs `command_line` with these arguments; `main` records, and raises what it is given."""
    monkeypatch.setattr(cli, "_use_compilation_cache", lambda: None)

    def run(*arguments, presets=None, error=None, says=""):
        seen = []

        def main(config):
            seen.append(config)
            print(says, end="")
            if error is not None:
                raise error

        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        cli.command_line(main, Config, presets=presets)
        return seen[0]

    return run


def test_what_jaxdl_logs_is_shown_once(capsys):
    """Though the line comes twice, and absl gives the root logger a handler of its own."""
    log, handler = logging.getLogger("jaxdl.meta.memory"), logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with cli._notes_shown():
            log.info("exact")
            log.info("exact")
        log.warning("after the run")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err == "exact\nafter the run\n"


def test_flags_become_the_configuration(run):
    assert run() == Config()
    assert run("--steps", "7", "--kind", "b", "--rate", "1e-3") == Config(7, "b", 0.001)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Config()),
        (["--preset", "large"], Config(100, "b")),
        (["--preset=large", "--steps", "5"], Config(5, "b")),
        (["--steps", "5", "--preset", "large"], Config(5, "b")),
    ],
)
def test_flags_change_a_preset(run, arguments, expected):
    assert run(*arguments, presets=PRESETS) == expected


def test_help_names_the_presets_and_tells_what_fields_mean(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help", presets=PRESETS)
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "small, large" in text
    assert "How many." in text
    assert "The command line: what reaches" in text, "the first line of the module of main"


def test_help_gives_command_runtime_and_result_lines_of_their_own(run, capsys, monkeypatch):
    about = "A question.\n\nMore of it.\n\nCommand: c\nRuntime: r\nResult: s\n    and t\n"
    monkeypatch.setattr(sys.modules[__name__], "__doc__", about)
    with pytest.raises(SystemExit):
        run("--help", presets=PRESETS)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for line in ("Command: c", "Runtime: r", "Result: s"):
        assert line in lines
    assert any(line.startswith("--preset NAME sets all flags") for line in lines)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("too many ways"), 2, "error: too many ways"),
        (RunError("the disk is full"), 1, "error: the disk is full"),
        (
            Interrupted("stopped by SIGTERM: saved", signal.SIGTERM),
            143,
            "stopped by SIGTERM: saved",
        ),
        (Interrupted("stopped by SIGINT: saved", signal.SIGINT), 130, "stopped by SIGINT: saved"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT: nothing was begun"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"),
            1,
            "error: the device is out of memory. Lower the sizes of the run",
        ),
        (
            jax.errors.JaxRuntimeError("INTERNAL: Error in kernel: Out of memory allocating 1"),
            1,
            "error: the device is out of memory. Lower the sizes of the run",
        ),
    ],
)
def test_each_end_has_its_code_and_one_line(run, capsys, error, code, line):
    with pytest.raises(SystemExit) as stop:
        run(error=error)
    assert stop.value.code == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_result_that_could_not_be_printed_is_told_at_the_end(run, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stop:
            run(error=None, says="the result")
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(
        "error: standard output took no more (No space left on device). All else is done"
    )


def test_help_that_could_not_be_printed_is_told(run, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stop:
            run("--help")
    assert stop.value.code == 1
    assert "standard output took no more (No space left" in capsys.readouterr().err


def test_an_error_cannot_act_on_the_terminal(run, capsys):
    with pytest.raises(SystemExit):
        run(error=InputError("no file \x1b[31mred\x07. Give\nanother"))
    assert capsys.readouterr().err == "error: no file \\x1b[31mred\\x07. Give\nanother\n"


def test_what_is_too_large_names_the_flags(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run(error=TooLarge("9 GiB are needed, and 8 GiB are free", "Take a smaller net"))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: 9 GiB are needed, and 8 GiB are free. Lower the sizes of the run\n"


@dataclasses.dataclass(frozen=True)
class Sizes:
    hidden: int = 64
    batch: int = 32
    seeds: int = 1
    chunk: int = 0


@pytest.mark.parametrize(
    ("config", "default", "says"),
    [
        (Sizes(hidden=10**9), None, "--hidden"),
        (Sizes(batch=10**6, seeds=9), Sizes(batch=10**6), "--seeds"),
        (Sizes(batch=4, hidden=10**9), None, "--hidden"),  # less than by default is no cause
        (Sizes(), None, "--hidden or --batch or --seeds"),
    ],
)
def test_the_advice_without_memory_names_the_flags_at_fault(config, default, says):
    assert largest(config, default) == says


FLAGS = {"data_dir": "--data-dir", "from_dir": "--from", "steps": "--steps", "best": "--best"}


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("let `data_dir=` or DATA name one", "let --data-dir or DATA name one"),
        ("`steps=0`: choose more", "--steps 0: choose more"),
        ("`steps=-1` and `from_dir=a b`", "--steps -1 and --from a b"),
        ("leave `best=True` or `best=False` out", "leave --best or --no-best out"),
        ("`best=Trueish`", "--best Trueish"),
        # No argument of this command, no argument at all, no backticks.
        ("`ways=5`: only 4 classes", "`ways=5`: only 4 classes"),
        ("call `steps()` or `load(data_dir=x)`", "call `steps()` or `load(data_dir=x)`"),
        ("steps=3 and `data_dir`", "steps=3 and `data_dir`"),
        ("run `tfds build a --data_dir=b` once", "run `tfds build a --data_dir=b` once"),
        ("`a` steps= `b`", "`a` steps= `b`"),
    ],
)
def test_a_message_of_the_library_is_told_in_flags(sentence, shown):
    assert in_flags(sentence, FLAGS) == shown


@dataclasses.dataclass(frozen=True)
class Inner:
    runs_dir: Path = Path("runs")


@dataclasses.dataclass(frozen=True)
class Outer:
    log_every: int = 1
    run: Inner = dataclasses.field(default_factory=Inner)


def test_the_flags_of_nested_dataclasses_have_no_prefix():
    assert flags_of(Outer) == {"log_every": "--log-every", "runs_dir": "--runs-dir"}


def test_flags_of_nested_dataclasses_are_read_without_a_prefix(monkeypatch):
    monkeypatch.setattr(cli, "_use_compilation_cache", lambda: None)
    monkeypatch.setattr(sys, "argv", ["program", "--runs-dir", "x", "--log-every", "3"])
    seen = []
    cli.command_line(lambda config: seen.append(config), Outer)
    assert seen == [Outer(3, Inner(Path("x")))]


def test_the_example_of_run_flags_is_not_in_the_help(monkeypatch, capsys):
    """The help shows a dataclass's docstring, up to a section like "Example:"."""

    @dataclasses.dataclass(frozen=True)
    class OfARun:
        run: RunFlags = dataclasses.field(default_factory=RunFlags)

    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    with pytest.raises(SystemExit):
        cli.command_line(print, OfARun)
    text = capsys.readouterr().out
    assert "Folder, logging and devices of a run" in text
    assert ">>>" in inspect.getdoc(RunFlags)
    assert ">>>" not in text


@pytest.mark.parametrize("error", [InputError, RunError])
def test_an_error_that_names_an_argument_names_its_flag(run, capsys, error):
    with pytest.raises(SystemExit):
        run(error=error("`rate=3.0` with `steps=` and `ways=2`"))
    assert capsys.readouterr().err == "error: --rate 3.0 with --steps and `ways=2`\n"


@pytest.mark.parametrize(
    "error", [TypeError("bug"), jax.errors.JaxRuntimeError("INTERNAL: bug"), ValueError("bug")]
)
def test_a_bug_keeps_its_traceback(run, error):
    with pytest.raises(type(error), match="bug"):
        run(error=error)


def test_a_reader_who_has_enough_is_no_error(tmp_path):
    code = """
import dataclasses, sys
from jaxdl.runs import cli
@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
cli._use_compilation_cache = lambda: None
cli.command_line(lambda config: print("x" * 100_000), Config)
"""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("home", "variable", "expected"),
    [
        (True, "/cache/x", "/cache/x"),
        (True, None, "/home/me/.cache/jaxdl/xla"),
        (False, "/cache/x", "/cache/x"),
        (False, None, None),
    ],
)
def test_where_compiled_programs_are_kept(monkeypatch, home, variable, expected):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    settings = {}
    monkeypatch.setattr(cli.Path, "home", (lambda: Path("/home/me")) if home else no_home)
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAXDL_XLA_CACHE")
    if variable:
        monkeypatch.setenv("JAXDL_XLA_CACHE", variable)
    cli._use_compilation_cache()
    assert settings.get("jax_compilation_cache_dir") == expected


@pytest.mark.parametrize("kind", [InputError, RunError, Diverged])
def test_errors_have_nothing_that_acts_on_a_terminal(kind):
    """Values of damaged files come into them."""
    assert str(kind("a name: \x1b[31m\u202e\nChoose another")) == (
        "a name: \\x1b[31m\\u202e\nChoose another"
    )
