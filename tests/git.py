"""Repositories that tests make."""

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What a command of git prints, in the repository of a folder."""
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    identity += ["-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path) -> str:
    """Commits all files of a folder, a new repository if it is none; the commit."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "As it is now")
    return git(folder, "rev-parse", "HEAD")
