"""Whose revision a run records: that of the program's repository, and jaxdl's beside it."""

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import jaxdl
from jaxdl.runs.provenance import peak_bytes, provenance, revision_of
from tests.git import commit, git

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A researcher's: a committed program and a folder that git does not look at."""
    (tmp_path / "program.py").write_text("print(1)\n")
    (tmp_path / ".gitignore").write_text("environment/\n")
    commit(tmp_path)
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "installed.py").write_text("")
    return tmp_path


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")[:12]


def test_a_file_has_the_commit_of_its_repository(repository):
    assert revision_of(repository / "program.py") == head(repository)
    first = head(repository)
    (repository / "more.py").write_text("")
    commit(repository)
    assert revision_of(repository / "program.py") == head(repository) != first


def test_a_file_that_differs_from_the_commit_is_marked_with_a_plus(repository):
    (repository / ".gitignore").write_text("environment/\nother/\n")
    assert revision_of(repository / "program.py") == head(repository) + "+"


@pytest.mark.parametrize("name", ["environment/installed.py", "new.py", "../outside.py"])
def test_a_file_that_the_repository_does_not_track_has_no_revision(repository, name):
    (repository / name).touch()
    assert revision_of(repository / name) == "unknown"


def test_a_program_that_is_not_committed_yet_has_the_commit_with_a_plus(repository):
    (repository / "new.py").touch()
    assert revision_of(repository / "new.py", new=True) == head(repository) + "+"
    assert revision_of(repository / "program.py", new=True) == head(repository)
    assert revision_of(repository / "environment" / "installed.py", new=True) == "unknown"


def test_without_git_or_a_commit_it_is_unknown(repository, monkeypatch, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    git(empty, "init", "-q")
    (empty / "program.py").touch()
    git(empty, "add", "program.py")
    assert revision_of(empty / "program.py") == "unknown"
    monkeypatch.setenv("PATH", str(empty))
    assert revision_of(repository / "program.py") == "unknown"


def of_main(monkeypatch, **attributes):
    main = types.ModuleType("__main__")
    vars(main).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)
    return provenance()


def test_a_run_records_the_revision_of_the_program_and_that_of_jaxdl(repository, monkeypatch):
    made_by = of_main(monkeypatch, __file__=str(repository / "program.py"))
    assert made_by["revision"] == head(repository)
    ours = revision_of(Path(jaxdl.__file__))
    assert made_by["jaxdl"] == {"version": jaxdl.__version__, "revision": ours}
    if (Path(jaxdl.__file__).parents[1] / ".git").exists():
        assert ours.rstrip("+") == head(Path(jaxdl.__file__).parent)


def test_an_experiment_of_this_checkout_has_the_same_revision_twice(monkeypatch):
    experiment = Path(jaxdl.__file__).parents[1] / "experiments" / "sinusoid.py"
    made_by = of_main(monkeypatch, __file__=str(experiment))
    assert made_by["revision"] == made_by["jaxdl"]["revision"]


def test_a_notebook_has_the_revision_of_the_folder_it_works_in(repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert of_main(monkeypatch)["revision"] == head(repository)
    monkeypatch.chdir(repository / "environment")
    assert of_main(monkeypatch)["revision"] == "unknown"


def test_a_program_started_by_a_relative_name_is_found_from_its_folder(repository):
    """As `python program.py`, in a process of its own."""
    (repository / "program.py").write_text(
        "from jaxdl.runs.provenance import provenance\nprint(provenance()['revision'])\n"
    )
    commit(repository)
    root = str(Path(jaxdl.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == head(repository)


def test_the_peak_memory_is_in_bytes():
    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.9 * held <= peak_bytes() < installed  # the kernel counts pages in batches
