"""Files are whole or absent, and what JSON cannot hold is turned into what it can."""

import dataclasses
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import RunError
from jaxdl.files.atomic import plain, read_json, write_text, writing


def test_write_text_replaces(tmp_path):
    path = tmp_path / "file"
    for text in ("old", "néw\n"):
        write_text(path, text)
        assert path.read_text("utf-8") == text
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, call, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    with pytest.raises(RunError, match=r"file \(No space left on device\)\. Free disk space, and"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EDQUOT, "Free disk space"),
        (errno.EACCES, "Correct the permissions"),
        (errno.EROFS, "another `runs_dir=`"),
        (errno.ENAMETOOLONG, "shorter `name=`"),
        (errno.EIO, "Remove the cause"),
    ],
)
def test_the_cure_fits_the_refusal(number, cure):
    with pytest.raises(RunError, match=cure), writing(Path("place")):
        raise OSError(number, os.strerror(number))


def test_below_a_file_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Not a directory"):
        write_text(tmp_path / "file" / "x", "text")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe", b"null"])
def test_read_json_refuses_what_is_no_object(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"cannot be read.*Move it away"):
        read_json(path)
    assert path.read_bytes() == content


def test_read_json_without_a_file(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path / "none.json")


@dataclasses.dataclass
class Point:
    x: int
    where: Path


def test_plain_survives_json():
    value = {
        1: np.float32(0.5),
        "array": jnp.arange(3),
        "nested": [(np.int64(2), None, True), {"p": Point(3, Path("a/b"))}],
        "not finite": [float("nan"), np.array([np.inf, 1.0])],
    }
    found = plain(value)
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found == {
        "1": 0.5,
        "array": [0, 1, 2],
        "nested": [[2, None, True], {"p": {"x": 3, "where": "a/b"}}],
        "not finite": ["nan", ["inf", 1.0]],
    }


def test_two_processes_may_write_one_file(tmp_path):
    """Each has a part of its own, which it moves there whole."""
    texts, path = ["a" * 50_000, "b" * 50_000], tmp_path / "file"

    def write(text):
        for _ in range(30):
            write_text(path, text)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, texts))
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["file"]
