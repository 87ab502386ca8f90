"""A new learner works at once, and its test fails until somebody writes the answer by hand."""

import os
import shutil
import subprocess
import sys

import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.recipes import command
from jaxdl.recipes.choice import find
from jaxdl.recipes.new import LONGEST, new_learner
from tests.project import ROOT


def run(folder, *command, jaxdl=""):
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    environment["PYTHONPATH"] = str(jaxdl or folder)
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def house(tmp_path):
    """The files of a clone that a new learner changes, and those that tell ruff what is ours."""
    for name in ("jaxdl", "experiments", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_outside_of_jaxdl_it_is_two_files_that_run(tmp_path):
    said = new_learner("own_idea", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"own_idea.py", "test_own_idea.py"}
    command = f"scripts/run few_shot --learner {tmp_path}/own_idea.py:own_idea"
    assert said[-3] == f"Train it in a clone of jaxdl: {command}"
    program = said[-1].replace('"steps": 500, "tasks": 8', '"steps": 1, "tasks": 1')
    (tmp_path / "program.py").write_text(program)
    assert "step 1  " in (trained := run(tmp_path, "program", jaxdl=ROOT)).stdout, trained.stderr
    assert find(f"{tmp_path}/own_idea.py:own_idea").name == "own_idea"
    options = ["pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    tested = run(tmp_path, *options, "test_own_idea.py", jaxdl=ROOT)
    assert "Failed: write what own_idea must give, and compare" in tested.stdout
    assert "1 failed, 3 passed" in tested.stdout


def test_in_a_clone_it_has_a_row_and_a_name(house):
    new_learner("own_idea", house)
    suite = (house / "tests/meta/test_contract.py").read_text()
    assert '    Row("own_idea", partial(own_idea, ways=WAYS), drops=False),\n' in suite
    table = (house / "jaxdl/recipes/learners.py").read_text()
    assert '    "own_idea": own_idea,\n' in table
    for text in (suite, table):
        assert "from jaxdl.meta.own_idea import own_idea\n" in text
    for check in (["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        checked = run(house, *check)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["a", "a_name_of_twenty_letters", "x" * LONGEST])
def test_names_of_any_length_are_formatted(name, house):
    new_learner(name, house)
    checked = run(house, "ruff", "format", "--check", ".")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_in_a_clone_it_fulfils_the_contract(tmp_path):
    clone = tmp_path / "clone"
    for name in ("jaxdl", "experiments", "scripts", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "_environment")
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, clone)
    new_learner("own_idea", clone)
    tested = run(clone, "pytest", "-q", "tests/meta", "-k", "own_idea", "-p", "no:cacheprovider")
    assert tested.stdout.count("FAILED") == 1, tested.stdout
    assert "test_the_answer_by_hand" in tested.stdout
    checked = run(clone, "mypy")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Own", "'Own' is no name of a function. Choose lower-case letters and _"),
        ("own-idea", "is no name of a function"),
        ("class", "is no name of a function"),
        ("x" * 27, "is too long. Choose at most 26 letters"),
        ("maml", "there is a learner maml already. Choose another name"),
        ("there", "there.py is there already. Choose another name"),
    ],
)
def test_names_that_are_refused(name, words, tmp_path):
    (tmp_path / "there.py").write_text("mine")
    with pytest.raises(InputError, match=words):
        new_learner(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine"


def test_a_house_that_was_rebuilt_is_told_and_left_alone(house):
    table = house / "jaxdl/recipes/learners.py"
    table.write_text("LEARNERS = {}")
    with pytest.raises(RunError, match=r"learners.py has no line 'LEARNERS.* by hand"):
        new_learner("own_idea", house)
    assert not (house / "jaxdl/meta/own_idea.py").exists()


def test_the_command(tmp_path, capsys):
    assert command.main(["new", "learner", "own_idea", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path}/own_idea.py\n")
    assert command.main(["new", "learner", "own_idea", "--folder", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert command.main(["new", "learner", "b", "--folder", str(tmp_path / "none")]) == 2
