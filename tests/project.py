"""The dependencies of pyproject.toml, as requirements and as the modules that they bring."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from jaxdl.errors import CALLED

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
MODULE = {package: module for module, package in CALLED.items()} | {
    "orbax-checkpoint": "orbax",
    "pyyaml": "yaml",
}
"""What a package is called in Python, where that is not its name."""


def packages(extra: str) -> list[str]:
    """What an extra asks for; of an extra that names others, what those ask for."""
    needs = PROJECT["optional-dependencies"][extra]
    others = [need.extras for need in map(Requirement, needs) if need.name == PROJECT["name"]]
    return [need for names in others for name in sorted(names) for need in packages(name)] or needs


def modules(needs: list[str]) -> set[str]:
    """What Python calls these packages."""
    return {MODULE.get(need.name, need.name) for need in map(Requirement, needs)}


CORE = modules(PROJECT["dependencies"])
EXTRAS = {
    name: modules(packages(name))
    for name in PROJECT["optional-dependencies"]
    if name not in ("all", "cuda12", "cuda13")  # they bring no module of their own
}
