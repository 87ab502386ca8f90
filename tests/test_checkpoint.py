"""Checkpoints give back the bits that they were given, or one sentence."""

import errno
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import Checkpoints
from jaxdl.errors import RunError

TREE = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "half": np.asarray(jnp.linspace(0, 1, 5, dtype=jnp.bfloat16)),
    "nested": (np.int32(3), [np.array([True, False])], np.zeros((0, 2), np.float32)),
}
ZEROS = jax.tree.map(np.zeros_like, TREE)


def same_bits(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in pairs
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with checkpoints 3 and 4; tests copy it."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, ZEROS, {"number": 0.1})
        checkpoints.save(4, TREE, {"number": 0.2, "sums": [1 / 3]})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_bits_types_structure_and_notes_come_back(saved):
    with Checkpoints(saved) as checkpoints:
        newest, notes = checkpoints.restore_with_notes(ZEROS)
        assert same_bits(newest, TREE)
        assert notes == {"number": 0.2, "sums": [1 / 3]}
        assert same_bits(checkpoints.restore(TREE, 3), ZEROS)
        assert checkpoints.steps() == [3, 4]


def test_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "new" / "folder", keep=2) as checkpoints:
        assert checkpoints.steps() == []
        for step in (2, 10, 9_999, 10_000):
            checkpoints.save(step, {"x": np.full(2, step)})
        checkpoints.wait()
        assert checkpoints.steps() == [9_999, 10_000]
        assert checkpoints.restore({"x": np.zeros(2, int)})["x"].tolist() == [10_000, 10_000]


def test_what_changes_after_save_is_not_saved(tmp_path, monkeypatch):
    # Buffers change under a save that is still being written: in place, and by donation.
    host, device = np.ones(200_000, np.float32), jnp.ones(200_000)
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    (tmp_path / "c").mkdir()
    with Checkpoints(tmp_path / "c") as checkpoints:
        given, save = [], checkpoints._manager.save

        def slow_save(step, args):
            given.append(dict(args.items())["tree"].item)
            return save(step, args=args)

        monkeypatch.setattr(checkpoints._manager, "save", slow_save)
        checkpoints.save(1, {"host": host, "device": device})
        host[:] = -1
        for _ in range(20):
            device = overwrite(device)
        jax.block_until_ready(device)
        checkpoints.wait()
        found = checkpoints.restore({"host": host, "device": device})
    # What Orbax was given may be read at any later time.
    for tree in (found, *given):
        assert np.all(np.asarray(tree["host"]) == 1)
        assert np.all(np.asarray(tree["device"]) == 1)


DAMAGES = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_never_gives_wrong_values(folder, damage):
    # Orbax writes some files that it does not read back; where it does, the damage is found.
    refused = 0
    for path in [path for path in (folder / "4").rglob("*") if path.is_file()]:
        data = path.read_bytes()
        if not data:
            continue
        path.write_bytes(DAMAGES[damage](data))
        with Checkpoints(folder) as checkpoints:
            told = None
            try:
                assert same_bits(checkpoints.restore(ZEROS), TREE)
            except RunError as error:
                told = str(error)
            if told:
                refused += 1
                assert "cannot be read" in told
                assert f"move {folder / '4'} away to go on from step 3" in told
                assert "\n" not in told
                assert same_bits(checkpoints.restore(ZEROS, 3), ZEROS)
        path.write_bytes(data)
    assert refused >= 3


def test_a_flipped_bit_of_a_parameter_is_found(folder, monkeypatch):
    # What Orbax would hand on without a word.
    with Checkpoints(folder) as checkpoints:
        read = checkpoints._read

        def flipped(step, target):
            record, tree = read(step, target)
            tree["w"] = tree["w"] + np.float32(1e-7)
            return record, tree

        monkeypatch.setattr(checkpoints, "_read", flipped)
        with pytest.raises(RunError, match="checksum"):
            checkpoints.restore(ZEROS)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({**TREE, "w": np.zeros((3, 5), np.float32)}, r"float32\[3, 4\] there and float32\[3, 5\]"),
        ({**TREE, "w": np.zeros((3, 4), np.int32)}, r"float32\[3, 4\] there and int32\[3, 4\]"),
        ({**TREE, "more": np.zeros(1)}, r"'more'.* absent there"),
        ({"w": TREE["w"]}, "absent here"),
    ],
)
def test_another_net_is_refused_by_the_name_of_its_leaf(saved, like, words):
    with Checkpoints(saved) as checkpoints, pytest.raises(RunError, match=words):
        checkpoints.restore(like)


def test_missing_checkpoints(saved, tmp_path):
    none = Checkpoints(tmp_path / "none")
    with none, pytest.raises(RunError, match="there is no checkpoint in"):
        none.restore(ZEROS)
    with Checkpoints(saved) as checkpoints, pytest.raises(RunError, match="no checkpoint 7 in"):
        checkpoints.restore(ZEROS, 7)


def test_a_killed_save_is_no_checkpoint_and_is_swept(folder):
    left = folder / "5.orbax-checkpoint-tmp-12"
    shutil.copytree(folder / "4", left)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [3, 4]
        assert same_bits(checkpoints.restore(ZEROS), TREE)
        assert left.exists(), "reading deletes nothing: another process may be writing"
        checkpoints.save(5, ZEROS)
    assert not left.exists()
    assert Checkpoints(folder).steps() == [4, 5]


def test_orbax_logs_no_tracebacks_of_what_it_raises(tmp_path, caplog, monkeypatch):
    # A disk that is full in the background, where Orbax writes.
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path / "c")
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "finalize", full, raising=False)
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", full)
    checkpoints.save(1, ZEROS)
    with pytest.raises(RunError, match="No space left"):
        checkpoints.close()
    assert caplog.text == ""
    assert checkpoints.steps() == []


@pytest.mark.parametrize("place", ["save", "wait_until_finished"])
def test_a_full_disk_is_one_sentence_and_costs_nothing(folder, place, monkeypatch):
    # In the foreground, or in the background as the next wait tells.
    with Checkpoints(folder) as checkpoints:
        checkpoints.restore(ZEROS)

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints._manager, place, full)
            with pytest.raises(
                RunError, match=r"No space left.*checkpoint 4 is safe.*same command"
            ):
                checkpoints.save(5, ZEROS)
    with Checkpoints(folder) as checkpoints:
        assert same_bits(checkpoints.restore(ZEROS), TREE)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    checkpoints = Checkpoints(tmp_path / "file" / "c")
    with checkpoints, pytest.raises(RunError, match=r"could not be .*nothing was saved before"):
        checkpoints.save(1, ZEROS)


def test_a_checkpoint_that_is_there_is_kept(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, ZEROS)
        assert same_bits(checkpoints.restore(ZEROS, checkpoints.wait()), TREE)
        with pytest.raises(RunError, match="after checkpoint 4"):
            checkpoints.save(2, ZEROS)
