"""The scripts, in a copy of the project whose lock is empty, so that nothing is downloaded."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ECHO = '''"""Prints what it was given.

More about it.
"""
import os, sys, time
if "--wait" in sys.argv:
    print("waiting", flush=True)
    time.sleep(60)
print(sys.argv[1:], os.getcwd(), os.environ["JAXDL_RUNS"])
sys.exit(7)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project whose environment exists, in a path with a space."""
    root = tmp_path_factory.mktemp("a project") / "jax dl"
    copy_project(root)
    made = call(root, "run", "echo")
    assert made.returncode == 7, made.stderr
    assert "making the environment" in made.stderr
    return root


def copy_project(root: Path) -> None:
    (root / "experiments").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("peers"))
    (root / "requirements.lock").write_text("# nothing\n")
    (root / "experiments" / "__init__.py").write_text(
        "import signal, sys\n"  # the real one answers it, too
        "if '--blocked' in sys.orig_argv:\n"
        "    sys.exit(signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
    )
    (root / "experiments" / "echo.py").write_text(ECHO)
    (root / "experiments" / "_hidden.py").write_text('"""Hidden."""')
    (root / "experiments" / "big.py").write_text('"""Imports jax."""\nimport jax_is_not_here\n')


def start(
    root: Path,
    script: str,
    *flags: str,
    cwd: Path | None = None,
    start_new_session: bool = False,
    **environ: str,
):
    given = {k: v for k, v in os.environ.items() if not k.startswith("JAXDL_")}
    return subprocess.Popen(
        [root / "scripts" / script, *flags],
        cwd=cwd or root,
        start_new_session=start_new_session,
        env={**given, "JAXDL_PYTHON": sys.executable, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(root: Path, script: str, *flags: str, **options) -> subprocess.CompletedProcess[str]:
    process = start(root, script, *flags, **options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_run_alone_lists_the_experiments_without_importing_them(project):
    listed = call(project, "run")
    assert listed.returncode == 0
    assert listed.stdout.splitlines()[1:] == [
        "  big   Imports jax.",
        "  echo  Prints what it was given.",
    ]


def test_run_lists_the_real_experiments():
    listed = call(ROOT, "run")
    assert listed.returncode == 0
    for path in (ROOT / "experiments").glob("[a-z]*.py"):
        assert f"  {path.stem} " in listed.stdout


@pytest.mark.parametrize("name", ["nothing", "_hidden", "../scripts/run", "echo.py", "--steps"])
def test_an_unknown_experiment_is_refused_with_the_list(project, name):
    refused = call(project, "run", name)
    assert refused.returncode == 2
    assert refused.stdout == ""
    sentence, _, *names = refused.stderr.splitlines()
    assert sentence == f'scripts/run: there is no experiment "{name}"; choose one of these.'
    assert len(names) == 2


def test_flags_exit_code_and_folder_of_the_caller_pass_through(project, tmp_path):
    ran = call(project, "run", "echo", "--a", "b c", "*", cwd=tmp_path)
    assert ran.returncode == 7
    assert ran.stdout.strip() == f"['--a', 'b c', '*'] {tmp_path} {project / 'runs'}"
    assert ran.stderr == "", "the environment was there already"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_experiment_itself(project, number):
    process = start(project, "run", "echo", "--wait")
    assert process.stdout
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == -number


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1])
def test_ctrl_c_at_the_very_start_ends_it_without_a_traceback(project, seconds):
    """To all processes of the command, as a terminal sends it."""
    process = start(project, "run", "echo", "--wait", start_new_session=True)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="env of others holds no signals back")
def test_python_starts_with_ctrl_c_held_back(project):
    assert call(project, "run", "echo", "--blocked").returncode == 0


def test_ctrl_c_that_a_program_answers_ends_the_script_that_waits_for_it(project, tmp_path):
    """A stand-in for a Python that ends by itself, while the terminal's signal goes to all."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/usr/bin/env bash\ntrap '' INT\nkill -INT 0\necho 3.11\n")
    fake.chmod(0o755)
    environ = {"JAXDL_VENV": str(tmp_path), "start_new_session": True}
    ran = call(project, "run", "echo", **environ)
    assert ran.returncode == 130
    assert (ran.stdout, ran.stderr) == ("", "")


def test_a_list_that_could_not_be_printed_is_told(project):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [project / "scripts" / "run"],
            env={**os.environ, "JAXDL_PYTHON": sys.executable},
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    line = "scripts/run: standard output took no more (No space left on device). Make room\n"
    assert done.stderr == line


def test_a_module_of_the_callers_folder_does_not_hide_the_project(project, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit(99)")
    assert call(project, "run", "echo", cwd=tmp_path).returncode == 7


def test_a_changed_lock_and_an_interrupted_installation_are_noticed(project):
    (project / "requirements.lock").write_text("# changed\n")
    assert "up to date" in call(project, "run", "echo").stderr
    assert call(project, "run", "echo").stderr == ""
    # As after kill -9 in the middle of an installation.
    leftover = project / ".venv" / "half-installed"
    leftover.write_text("")
    (project / ".venv" / ".jaxdl" / "building").touch()
    shutil.rmtree(next((project / ".venv" / ".jaxdl").glob("3.*")))
    mended = call(project, "run", "echo")
    assert "making the environment" in mended.stderr
    assert mended.returncode == 7
    assert not leftover.exists()


def test_two_calls_at_once_make_one_environment(tmp_path):
    copy_project(tmp_path / "p")
    calls = [start(tmp_path / "p", "run", "echo") for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in calls]
    assert [process.returncode for process in calls] == [7, 7], errors
    assert sum("making the environment in" in error for error in errors) == 1
    assert call(tmp_path / "p", "run", "echo").stderr == ""


def test_an_environment_of_the_user_is_not_touched(tmp_path):
    copy_project(tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").write_text("mine")
    refused = call(tmp_path, "run", "echo")
    assert refused.returncode == 1
    assert "was not made by the scripts of this project: move it away" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / ".venv").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("/no/such/python", "does not run: set it to a Python 3.11 or newer"),
        ("OLD", "is Python 3.10: 3.11 or newer is needed"),
    ],
)
def test_a_wrong_python_is_named(tmp_path, python, sentence):
    copy_project(tmp_path)
    if python == "OLD":
        old = tmp_path / "old"
        old.write_text("#!/bin/sh\necho 3.10\n")
        old.chmod(0o755)
        python = str(old)
    refused = call(tmp_path, "run", "echo", JAXDL_PYTHON=python)
    assert refused.returncode == 1
    assert refused.stderr == f"scripts/run: JAXDL_PYTHON={python} {sentence}\n"


def test_pythons_that_do_not_run_are_passed_over(tmp_path, project):
    for name, body in (("python3", "exit 127"), ("python3.12", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert call(project, "run", PATH=path, JAXDL_PYTHON="").returncode == 0
    for name in ("python", "python3", "python3.13", "python3.12", "python3.11"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    refused = call(project, "run", PATH=path, JAXDL_PYTHON="")
    assert refused.returncode == 1
    assert refused.stderr.startswith("scripts/run: no Python 3.11 or newer was found: install one")


def test_without_a_network_there_is_one_sentence(tmp_path):
    copy_project(tmp_path)
    (tmp_path / "requirements.lock").write_text(f"absl-py==2.1.0 --hash=sha256:{'0' * 64}\n")
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = http://127.0.0.1:9/simple-index\n")
    environ = {k: "" for k in os.environ if k.startswith("PIP_")}
    refused = call(tmp_path, "run", "echo", **{**environ, "PIP_CONFIG_FILE": str(settings)})
    assert refused.returncode == 1
    told = refused.stderr.splitlines()[1:]
    assert len(told) == 1, refused.stderr
    assert "the network does not answer: connect and run the same command again" in told[0]


def test_the_second_start_is_quick(project):
    call(project, "run", "echo")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call(project, "run", "echo")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, which does not grow when the machine has other work.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def fake_environment(root: Path, name: str, version: str) -> None:
    """An environment with all of the lock, whose Python only tells what it is called with."""
    python = root / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'if [ "$3" = -c ]; then echo {version}; else echo "{version} $*"; fi\n'
    )
    python.chmod(0o755)
    lock = root / name / ".jaxdl" / version / "requirements-dev.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("# nothing\n")


@pytest.mark.parametrize("there", [False, True])
def test_the_matrix_is_the_suite_and_where_there_is_a_python_the_suite_once_more(tmp_path, there):
    """Planted bugs: the flags reach one of the two alone; a shim that does not run counts."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "requirements-dev.lock").write_text("# nothing\n")
    fake_environment(tmp_path, ".venv", "3.11")
    fake_environment(tmp_path, ".venv-3.12", "3.12")
    other = tmp_path / "bin" / "python3.12"
    other.parent.mkdir()
    other.write_text(f"#!/usr/bin/env bash\n{'echo 3.12' if there else 'exit 127'}\n")
    other.chmod(0o755)
    given = {k: v for k, v in os.environ.items() if not k.startswith("JAXDL_")}
    done = subprocess.run(
        [tmp_path / "scripts" / "test", "--matrix", "-k", "maml"],
        env={**given, "PATH": f"{other.parent}:{os.environ['PATH']}"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    suites = [line for line in done.stdout.splitlines() if "pytest" in line]
    assert [line[:4] for line in suites] == ["3.11", "3.12"][: 1 + there]
    assert all(line.endswith("-k maml") for line in suites)
    assert ("Python 3.12 is not on PATH, so jax 0.11 is not tried" in done.stderr) is not there
