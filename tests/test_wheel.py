"""The wheel: what is in it, and a researcher's own repository that lives on it alone.

It is installed in an environment that has the packages of this one, less those of the extras that
the repository does not ask for, and no checkout.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import jaxdl
from tests.git import commit, git
from tests.project import EXTRAS, ROOT

pytestmark = pytest.mark.slow

RESEARCHER = ROOT / "tests" / "researcher"
ABSENT = sorted(EXTRAS["data"] | EXTRAS["plots"] | EXTRAS["tensorboard"] | EXTRAS["rl"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without isolation, by the hatchling of the lock: no network, and always the same."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel: the core and the extra cli."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    found = folder / "bin" / "python"
    pip("--python", found, "install", "--no-deps", "--no-index", wheel)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    # absl stays: optax needs it. A line that begins with import is run when Python starts.
    blocked = [name for name in ABSENT if name != "absl"]
    hide = f"import sys; sys.modules.update(dict.fromkeys({blocked}))"
    (site / "others.pth").write_text("\n".join([*packages, hide, ""]))
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The researcher's files, committed."""
    folder = tmp_path_factory.mktemp("repository")
    for path in RESEARCHER.glob("*.py"):
        shutil.copy(path, folder)
    (folder / ".gitignore").write_text("runs/\n__pycache__/\n.mypy_cache/\n")
    commit(folder)
    return folder


def pip(*arguments: object) -> None:
    call(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def call(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command without what leads to the checkout or to settings of the tests."""
    ours = ("PYTHON", "JAXDL_", "XLA_FLAGS", "MYPYPATH")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"JAXDL_XLA_CACHE": os.environ["JAXDL_XLA_CACHE"]}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_holds_jaxdl_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    about = f"jaxdl-{jaxdl.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"jaxdl", about}
    files = [path for path in (ROOT / "jaxdl").rglob("*") if path.is_file()]
    ours = {p.relative_to(ROOT).as_posix() for p in files if "__pycache__" not in p.parts}
    assert {name for name in names if name.startswith("jaxdl/")} == ours
    assert {
        "jaxdl/py.typed",
        "jaxdl/__init__.pyi",
        "jaxdl/data/sets/split_lists/fc100.json",
    } <= ours


def test_it_says_what_it_needs_and_which_command_it_brings(wheel):
    about = f"jaxdl-{jaxdl.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as file:
        metadata = file.read(f"{about}/METADATA").decode()
        entries = file.read(f"{about}/entry_points.txt").decode()
    needs = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needs) == [
        *("flax", "jax", "jaxtyping", "numpy", "optax", "orbax-checkpoint", "pyyaml", "scipy")
    ]
    assert entries.split() == ["[console_scripts]", "jaxdl", "=", "jaxdl.recipes.command:program"]


def test_the_environment_knows_nothing_of_the_checkout(python, tmp_path):
    code = """
import importlib.util, jaxdl
print(jaxdl.__file__)
print([name for name in ("experiments", "tests") if importlib.util.find_spec(name)])
"""
    found, others = call(python, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert Path(found).is_relative_to(python.parents[1])
    assert others == "[]"


def test_the_command_is_there(python, tmp_path):
    command = python.with_name("jaxdl")
    assert call(command, "--version", cwd=tmp_path).stdout == f"{jaxdl.__version__}\n"
    assert "  prepare  " in call(command, "--help", cwd=tmp_path).stdout
    assert "--accept-checksum" in call(command, "prepare", "--help", cwd=tmp_path).stdout
    refused = subprocess.run([command, "prepare", "numbers"], capture_output=True, text=True)
    assert refused.returncode == 2
    sentences = 'scikit-learn is not installed. Install it: pip install "jaxdl[data]"'
    assert refused.stderr == f"error: {sentences}\n"


def test_a_repository_of_ones_own_trains_resumes_and_reprints(python, repository):
    def run(*flags: object) -> tuple[str, str]:
        done = call(python, "experiment.py", "--log-every", 10, *flags, cwd=repository)
        return done.stdout, done.stderr

    def result(directory: Path) -> dict[str, Any]:
        return json.loads((directory / "result.json").read_text())

    _, told = run("--steps", 10)
    assert "step 10/10" in told
    (directory,) = (repository / "runs" / "curves").iterdir()
    out, told = run("--steps", 20)
    assert f"resuming runs/curves/{directory.name} from step 10\n" in told
    assert re.fullmatch(r"(seed [01]: accuracy 0\.\d{4} on new classes\n){2}", out)
    assert run("--steps", 20) == (out, "")

    found = result(directory)
    assert min(found["accuracy"]) > 0.8, "chance is 0.2"
    assert found["run"]["revision"] == git(repository, "rev-parse", "HEAD")[:12]
    assert found["run"]["jaxdl"] == {"version": jaxdl.__version__, "revision": "unknown"}
    run("--steps", 20, "--name", "whole")
    assert result(directory.with_name("whole"))["accuracy"] == found["accuracy"]


def test_a_wrong_flag_of_it_is_one_sentence(python, repository):
    environ = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}
    command = [python, "experiment.py", "--log-every", "0"]
    refused = subprocess.run(command, cwd=repository, env=environ, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr == "error: --log-every 0: choose at least 1\n"


def test_its_types_are_checked_strictly_through_those_of_jaxdl(python, repository):
    files = sorted(path.name for path in repository.glob("*.py"))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    config = repository / "mypy.ini"
    config.write_text("[mypy]\n[mypy-optax.*]\nignore_missing_imports = True\n")
    assert (
        "Success: no issues found in 3 source files" in call(*mypy, *files, cwd=repository).stdout
    )
    # And they are: a wrong argument is seen.
    wrong = repository / "wrong.py"
    wrong.write_text("import jaxdl\n\njaxdl.run_keys(seed='one', seeds=2)\n")
    done = subprocess.run([*mypy, wrong.name], cwd=repository, capture_output=True, text=True)
    wrong.unlink()
    assert 'Argument "seed" to "run_keys" has incompatible type "str"' in done.stdout, done.stderr


@pytest.mark.parametrize("path", sorted(RESEARCHER.glob("*.py")), ids=lambda path: path.name)
def test_the_researcher_uses_the_public_face_alone(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "jaxdl" not in (getattr(node, "module", None) or "")
            assert not [a.name for a in node.names if a.name.startswith("jaxdl.")]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jaxdl":
            assert node.attr in jaxdl.__all__


@pytest.mark.parametrize("name", ["reptile", "anil", "neural_process"])
def test_the_examples_run_on_the_wheel_alone(name: str, python: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "examples" / f"{name}.py", tmp_path)
    code = f"import {name}; print(*{name}.main(3).values())"
    found = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "95 % over 100 episodes" in found.stdout
