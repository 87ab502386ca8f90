import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

from jaxdl.data.prepare import cache
from jaxdl.data.prepare.cache import cached, fingerprint, load_arrays, save_arrays
from jaxdl.errors import InputError, RunError
from jaxdl.files import npz

ARRAYS = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "label": np.array([3, 1], np.int32),
    "label.names": np.array(["ä", "b/c"]),
    "id": np.array([b"x", b"yz"]),
    "file": np.array(1),
    "allow_pickle": np.array(2),
    "label.npy": np.array(3),
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


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, moment):
    path, old = tmp_path / "a.npz", {"x": np.zeros(3)}
    save_arrays(path, old)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz if moment == "write" else os, moment, fail)
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
        "from jaxdl.data.prepare.cache import save_arrays\n"
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
        rest = {name: archive[name] for name in ("image", npz.CONTENTS)}
    np.savez(path, **rest)
    with pytest.raises(RunError, match="arrays are missing"):
        load_arrays(path)
    np.savez(path, image=ARRAYS["image"])
    with pytest.raises(RunError, match="arrays are missing"):
        load_arrays(path)


def test_arrays_that_numpy_wrote_for_us_are_read(tmp_path):
    """As revisions before did."""
    arrays = {name: ARRAYS[name] for name in ("image", "label.names", "id")}
    np.savez(tmp_path / "a.npz", **arrays, **{npz.CONTENTS: np.array(sorted(arrays))})
    assert_equal(load_arrays(tmp_path / "a.npz"), arrays)


def test_arrays_that_cannot_be_kept_are_refused_and_leave_nothing_behind(tmp_path):
    for arrays in ({"x": np.array([None])}, {"a\0": np.zeros(1)}):
        with pytest.raises(InputError, match=r"dtype object|cannot be called"):
            save_arrays(tmp_path / "a.npz", arrays)
    assert os.listdir(tmp_path) == []


def test_a_damaged_file_is_made_anew(tmp_path, capsys):
    path = tmp_path / "a.npz"
    save_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-30])
    assert_equal(cached(path, lambda: ARRAYS))
    assert "Now they are decoded again" in capsys.readouterr().err
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
    assert "cannot store the decoded arrays" in capsys.readouterr().err


# --- What the arrays were decoded from -----------------------------------------------------------


BUILT = 1_700_000_000_500_000_000


def at(path, time):
    """As if it had been written at that time, in ns."""
    os.utime(path, ns=(time, time))


def build(folder, pixels=b"\0" * (cache.SMALL + 1), names="a\nb\n"):
    """A data set of one large and one small file, and what decodes it."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    (folder / "large").write_bytes(pixels)
    at(folder / "large", BUILT)
    (folder / "more" / "names.txt").write_text(names)

    def make():
        names = (folder / "more" / "names.txt").read_text().split()
        return {"pixels": np.frombuffer((folder / "large").read_bytes(), np.uint8), "names": names}

    return make


def rewritten(source):
    content = (source / "large").read_bytes()
    (source / "large").write_bytes(b"\1" + content[1:])  # the same size
    at(source / "large", BUILT + 10**9)


CHANGES = {
    "a large file has another size": lambda s: (s / "large").write_bytes(b"\0" * 2**21),
    "a large file was written anew": rewritten,
    "a small file has other content": lambda s: (s / "more" / "names.txt").write_text("a\nc\n"),
    "a file came": lambda s: (s / "split").write_text(""),
    "a file went": lambda s: (s / "more" / "names.txt").unlink(),
    "a file has another name": lambda s: (s / "large").rename(s / "larger"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_build_has_another_fingerprint(tmp_path, change):
    build(tmp_path)
    before = fingerprint(tmp_path)
    assert before == fingerprint(tmp_path)
    CHANGES[change](tmp_path)
    assert fingerprint(tmp_path) != before


def test_the_same_build_keeps_its_fingerprint_wherever_it_lies(tmp_path):
    build(tmp_path / "one")
    before = fingerprint(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # keeps times, as cp -a does
    (tmp_path / "one").rename(tmp_path / "moved")
    (tmp_path / "two" / ".DS_Store").write_text("of a desktop")
    at(tmp_path / "two" / "more" / "names.txt", 0)  # small files count by their content
    at(tmp_path / "two" / "large", BUILT // 10**9 * 10**9)  # tar keeps no fractions
    assert fingerprint(tmp_path / "moved") == fingerprint(tmp_path / "two") == before


def test_what_a_fingerprint_does_not_see(tmp_path):
    """A large file that was changed in place and got its old time back."""
    build(tmp_path)
    before = fingerprint(tmp_path)
    rewritten(tmp_path)
    at(tmp_path / "large", BUILT)
    assert (tmp_path / "large").stat().st_size == cache.SMALL + 1
    assert fingerprint(tmp_path) == before


def test_other_decoding_makes_other_fingerprints(tmp_path, monkeypatch):
    build(tmp_path)
    before = fingerprint(tmp_path)
    monkeypatch.setattr(cache, "DECODING", cache.DECODING + 1)
    assert fingerprint(tmp_path) != before


def test_a_set_that_was_rebuilt_is_decoded_anew_once_and_that_is_said(tmp_path, capsys):
    path, source = tmp_path / "a.npz", tmp_path / "set"
    make = build(source)
    first = cached(path, make, source)
    assert capsys.readouterr().err == ""
    assert cached(path, never, source).keys() == first.keys() == {"pixels", "names"}
    rewritten(source)
    assert cached(path, make, source)["pixels"][0] == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"{source} has changed since {path} was decoded from it: the arrays are decoded again"
    )
    assert cached(path, never, source)["pixels"][0] == 1
    assert capsys.readouterr().err == ""


def test_arrays_of_an_older_jaxdl_are_made_anew_once_and_that_is_said(tmp_path, capsys):
    path, source = tmp_path / "a.npz", tmp_path / "set"
    save_arrays(path, {"pixels": np.ones(3), "names": np.array(["a"])})  # without a fingerprint
    make = build(source)
    assert len(cached(path, make, source)["pixels"]) == cache.SMALL + 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} does not say which build of {source} it was decoded from")
    assert line.endswith("the arrays are decoded again")
    cached(path, never, source)
    assert capsys.readouterr().err == ""


def test_the_arrays_alone_are_enough_and_say_so_if_nobody_knows_their_build(tmp_path, capsys):
    path, source = tmp_path / "a.npz", tmp_path / "set"
    cached(path, build(source), source)
    shutil.rmtree(source)
    assert len(cached(path, never, source)["pixels"]) == cache.SMALL + 1
    assert capsys.readouterr().err == ""
    save_arrays(path, ARRAYS)
    assert_equal(cached(path, never, source))
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("the arrays are used as they are")


def test_a_build_that_changes_while_it_is_decoded_is_not_taken_for_the_new_one(tmp_path):
    path, source = tmp_path / "a.npz", tmp_path / "set"
    make = build(source)

    def interrupted():
        arrays = make()
        rewritten(source)
        return arrays

    assert cached(path, interrupted, source)["pixels"][0] == 0
    assert cached(path, make, source)["pixels"][0] == 1


def test_a_stale_file_whose_set_cannot_be_decoded_says_why(tmp_path):
    path, source = tmp_path / "a.npz", tmp_path / "set"
    cached(path, build(source), source)
    rewritten(source)

    def make():
        raise InputError("no TFDS here")

    with pytest.raises(InputError, match="no TFDS here"):
        cached(path, make, source)
