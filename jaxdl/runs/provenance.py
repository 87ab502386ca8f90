"""The provenance of a result: code, packages, device. Nobody can reproduce a number without it."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from jaxdl import __version__
from jaxdl.runs.program import program, program_digest


def provenance() -> dict[str, Any]:
    """The provenance of a result: code, package versions, device, machine.

    `revision` is the commit of the running program's repository, which may be the user's own, and
    `program` the digest of its text.
    `jaxdl` has the version and the commit of the library. See `revision_of`.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.devices()[0]
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "revision": revision_of(program(), new=True),
        "program": program_digest(),
        "jaxdl": {"version": __version__, "revision": revision_of(Path(__file__))},
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "machine": f"{_cpu()}, {os.cpu_count()} cores",
    }


def peak_bytes() -> int | None:
    """The most memory that this process has held, or None where the system does not say."""
    with contextlib.suppress(ImportError):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def revision_of(path: Path, *, new: bool = False) -> str:
    """The git commit of the repository that tracks a file, with a + if files differ from it.

    The result is "unknown" if no repository tracks the file, or if git is missing. For a folder,
    the repository must track some file in it.

    Args:
        new: whether a file that is neither tracked nor ignored counts: commit and +. Do not use it
            for an installed package, which may lie inside another project's repository.
    """
    folder, name = (path, ".") if path.is_dir() else (path.parent, path.name)

    def git(*arguments: str) -> str:
        ask = ["git", "-C", str(folder), *arguments]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("ls-files", name):
            return git("describe", "--always", "--abbrev=12", "--dirty=+")
        if new and git("ls-files", "--others", "--exclude-standard", name):
            return git("describe", "--always", "--abbrev=12") + "+"
    except (OSError, subprocess.CalledProcessError):
        pass
    return "unknown"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
