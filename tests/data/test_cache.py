import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from jaxdl.data import cache
from jaxdl.data.cache import cached, load_arrays, save_arrays
from jaxdl.errors import InputError, RunError

ARRAYS = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "label": np.array([3, 1], np.int32),
    "label.names": np.array(["ä", "b/c"]),
    "id": np.array([b"x", b"yz"]),
}


def assert_equal(found, expected=ARRAYS):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


def never():
    raise AssertionError("made anew")


def test_arrays_come_back_as_they_were_saved(tmp_path):
    path = tmp_path / "new" / "folder" / "a.npz"
    save_arrays(path, ARRAYS)
    assert_equal(load_arrays(path))
    assert_equal(cached(path, never))
    assert os.listdir(path.parent) == ["a.npz"]


def test_others_may_read_a_cached_file(tmp_path):
    save_arrays(tmp_path / "a.npz", ARRAYS)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o666 & ~cache.umask()


def test_arrays_are_made_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return ARRAYS

    for _ in range(2):
        assert_equal(cached(tmp_path / "a.npz", make))
    assert len(calls) == 1


@pytest.mark.parametrize("moment", ["savez", "fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, moment):
    path, old = tmp_path / "a.npz", {"x": np.zeros(3)}
    save_arrays(path, old)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np if moment == "savez" else os, moment, fail)
    with pytest.raises(OSError, match="No space"):
        save_arrays(path, ARRAYS)
    monkeypatch.undo()
    assert_equal(load_arrays(path), old)
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_process_killed_at_any_moment_leaves_the_old_file(tmp_path, moment):
    path, old = tmp_path / "a.npz", {"x": np.zeros(3)}
    save_arrays(path, old)
    script = (
        "import os, signal, sys, pathlib, numpy as np\n"
        "from jaxdl.data.cache import save_arrays\n"
        f"os.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_arrays(pathlib.Path(sys.argv[1]), {'x': np.ones(10**6)})\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -9
    assert_equal(load_arrays(path), old)


def test_any_one_changed_byte_is_found_or_harmless(tmp_path):
    path, two = tmp_path / "a.npz", {name: ARRAYS[name] for name in ("image", "label")}
    save_arrays(path, two)
    content, found = path.read_bytes(), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert_equal(load_arrays(path), two)  # dates and the like may differ, arrays may not
        except RunError:
            found += 1
    assert found > len(content) / 2


def test_a_file_without_one_of_its_arrays_is_damaged(tmp_path):
    path = tmp_path / "a.npz"
    save_arrays(path, ARRAYS)
    with np.load(path) as archive:
        rest = {name: archive[name] for name in archive.files if name != "label"}
    np.savez(path, **rest)
    with pytest.raises(RunError, match="arrays are missing"):
        load_arrays(path)


def test_a_damaged_file_is_made_anew(tmp_path, capsys):
    path = tmp_path / "a.npz"
    save_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-30])
    assert_equal(cached(path, lambda: ARRAYS))
    assert "made anew" in capsys.readouterr().err
    assert_equal(cached(path, never))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", b"\x80\x04K\x01."])
def test_what_is_no_archive_is_damaged(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"a\.npz cannot be read .* delete the file"):
        load_arrays(path)


def test_a_damaged_file_with_nothing_to_make_it_from_is_named_and_kept(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"damaged")

    def make():
        raise InputError("nothing prepared")

    with pytest.raises(RunError, match=r"a\.npz cannot be read"):
        cached(path, make)
    assert path.read_bytes() == b"damaged"
    with pytest.raises(InputError, match="nothing prepared"):
        cached(tmp_path / "b.npz", make)


def test_a_folder_that_cannot_be_written_costs_a_line_and_not_the_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert_equal(cached(tmp_path / "file" / "a.npz", lambda: ARRAYS))
    assert "cannot keep the decoded arrays" in capsys.readouterr().err
