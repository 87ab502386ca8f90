"""pyproject.toml and the lock files agree, and the locks say nothing but versions and hashes."""

import re
import shutil
import subprocess
from collections import defaultdict
from importlib import metadata
from typing import NamedTuple

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.project import PROJECT, PYPROJECT, ROOT, packages

LOCKED = PROJECT["dependencies"] + packages("all")
NEEDS = {
    "requirements.lock": LOCKED,
    "requirements-dev.lock": LOCKED + PYPROJECT["dependency-groups"]["dev"],
}
PIN = re.compile(r"([a-z0-9][a-z0-9-]*)==(\S+)(?: ; (.+))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}


class Pin(NamedTuple):
    version: Version
    marker: Marker | None
    hashes: int


def read(lock: str) -> dict[str, list[Pin]]:
    """The pins of a lock file by name; a line that is neither pin, hash nor comment is an error."""
    pins: dict[str, list[Pin]] = defaultdict(list)
    open_pin = None
    for line in (ROOT / lock).read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        if pin := PIN.fullmatch(line):
            name, version, marker = pin.groups()
            open_pin = name
            pins[name].append(Pin(Version(version), Marker(marker) if marker else None, 0))
        else:
            assert HASH.fullmatch(line), f"{lock}: {line}"
            assert open_pin
            pins[open_pin][-1] = pins[open_pin][-1]._replace(hashes=pins[open_pin][-1].hashes + 1)
    return pins


def environment(python: str, platform: str) -> dict[str, str]:
    version = {"python_version": python, "python_full_version": f"{python}.9"}
    return {**default_environment(), **version, "os_name": "posix", **PLATFORMS[platform]}


def chosen(pins: dict[str, list[Pin]], name: str, given: dict[str, str]) -> Version | None:
    """The version that a machine installs, of which there must not be two."""
    found = [
        pin.version
        for pin in pins.get(canonicalize_name(name), [])
        if pin.marker is None or pin.marker.evaluate(given)
    ]
    assert len(found) < 2, name
    return found[0] if found else None


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("lock", NEEDS)
def test_the_lock_satisfies_pyproject(lock, python, platform):
    pins, given = read(lock), environment(python, platform)
    for need in map(Requirement, NEEDS[lock]):
        version = chosen(pins, need.name, given)
        assert version is not None, f"{need} is not in {lock}: run scripts/lock"
        assert version in need.specifier, f"{need}, but {lock} has {version}: run scripts/lock"


@pytest.mark.parametrize(("python", "minor"), [("3.11", (0, 10)), ("3.12", (0, 11))])
def test_each_python_gets_the_jax_that_was_tried_on_it(python, minor):
    pins, given = read("requirements.lock"), environment(python, "linux")
    jax = chosen(pins, "jax", given)
    assert jax is not None
    assert jax.release[:2] == minor
    assert jax == chosen(pins, "jaxlib", given)


@pytest.mark.parametrize("lock", NEEDS)
def test_every_pin_has_its_hashes_and_there_is_no_address(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert " @ " not in text
    pins = read(lock)
    assert pins
    assert all(pin.hashes for versions in pins.values() for pin in versions)
    heavy = [name for name in pins if re.match(r"torch|tensorflow$|nvidia-|jax-cuda", name)]
    assert not heavy


def test_the_lock_of_the_checks_extends_that_of_the_runs():
    core, dev = read("requirements.lock"), read("requirements-dev.lock")
    assert {name: dev[name] for name in core} == core


@pytest.mark.parametrize("lock", NEEDS)
def test_the_lock_is_complete(lock):
    # It is installed without resolving, so whatever its packages need must be in it.
    pins, given = read(lock), {**default_environment(), "extra": ""}
    for name in pins:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate(given):
                version = chosen(pins, need.name, given)
                assert version is not None, f"{name} needs {need}"
                assert need.specifier.contains(version, prereleases=True), f"{name} needs {need}"


def test_no_file_names_a_package_registry():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    registry = re.compile(rb"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            assert not registry.search(path.read_bytes()), name
