"""Makes the environment of the scripts: a venv with pip and the packages of one hashed lock file.

Standard library only, since it runs before anything is installed. `scripts/_environment` calls it
as `_make_environment.py NAME-OF-THE-SCRIPT ENVIRONMENT LOCK`.

An environment holds a folder `.jaxdl`: `3.11/requirements.lock` is a copy of the lock file and is
written when all of it is installed; while `building` exists, an installation has not come to its
end. The interrupted are thrown away, and what this file did not make is never touched.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CORE, DEV = "requirements.lock", "requirements-dev.lock"
NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Network is unreachable",
    "ProxyError",
    "Connection reset by peer",
)


def main(me: str, environment: Path, lock: Path) -> None:
    def fail(sentence: str) -> NoReturn:
        sys.exit(f"{me}: {sentence}")

    own = environment / ".jaxdl"
    if environment.is_dir() and any(environment.iterdir()) and not own.is_dir():
        fail(
            f"{environment} exists and was not made by the scripts of this project: move it away,"
            " set JAXDL_VENV to another folder, or activate it and use python -m"
        )
    own.mkdir(parents=True, exist_ok=True)
    with open(own / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(me, "another call is making the environment: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        done = own / version
        if is_copy(done / lock.name, lock):  # by the call that this one waited for
            return
        building = own / "building"
        if building.exists() or not done.is_dir():
            clear(environment, keep=own)
        building.touch()
        shutil.rmtree(done, ignore_errors=True)
        python = environment / "bin" / "python"
        if not python.exists():
            say(me, f"making the environment in {environment}, once (some minutes)")
            make_venv(environment, fail)
        else:
            say(me, f"bringing {environment} up to date with {lock.name}")
        install(python, lock, own / "pip.log", fail)
        compile_all(python)
        done.mkdir()
        for name in {CORE, lock.name} if lock.name == DEV else {lock.name}:
            shutil.copy(lock.with_name(name), done / name)
        building.unlink()


def say(me: str, sentence: str) -> None:
    print(f"{me}: {sentence}", file=sys.stderr, flush=True)


def is_copy(copy: Path, original: Path) -> bool:
    return copy.is_file() and copy.read_bytes() == original.read_bytes()


def clear(environment: Path, keep: Path) -> None:
    for path in environment.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path != keep:
                shutil.rmtree(path)
        else:
            path.unlink()
    for path in keep.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def make_venv(environment: Path, fail: Callable[[str], NoReturn]) -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(
            f"{sys.executable} lacks the module {error.name}: install it (python3-venv on Debian"
            " and Ubuntu), or set JAXDL_PYTHON to another Python"
        )
    made = run(sys.executable, "-I", "-m", "venv", environment)
    if made.returncode:
        fail(f"{sys.executable} -m venv failed: {last_line(made.stdout)}")


def install(python: Path, lock: Path, log: Path, fail: Callable[[str], NoReturn]) -> None:
    # The lock names every package, so there is nothing to resolve. A pip setting that would install
    # elsewhere is overruled; one that names a mirror or a folder of wheels holds.
    command = ["install", "--require-hashes", "--no-deps", "--no-compile", "--retries", "3"]
    environ = {k: v for k, v in os.environ.items() if k not in ("PIP_TARGET", "PIP_PREFIX")}
    done = run(
        *(python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"),
        *(*command, "--progress-bar", "off", "-r", lock),
        env={**environ, "PIP_USER": "0"},
    )
    if done.returncode == 0:
        return
    log.write_text(done.stdout)
    if any(sign in done.stdout for sign in NO_NETWORK):
        fail(
            "the packages could not be downloaded, the network does not answer: connect and run the"
            " same command again, or point pip to a mirror (PIP_INDEX_URL) or to a folder of wheels"
            " (PIP_FIND_LINKS, PIP_NO_INDEX=1)"
        )
    fail(f"pip failed: {last_line(done.stdout)} (all of it: {log})")


def compile_all(python: Path) -> None:
    # On all cores, and even where PYTHONDONTWRITEBYTECODE is set: without bytecode the import of
    # jax takes 3 s more. Some packages carry files for other Pythons: their errors mean nothing.
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    run(python, "-I", "-m", "compileall", "-q", "-j", "0", site)


def run(*command: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; if this process is told to stop, so is the command."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
    )


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR: ")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: the environment could not be made: {error}")
