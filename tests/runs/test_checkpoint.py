"""Checkpoints give back the bits that they were given, or one sentence."""

import errno
import json
import shutil
import sys
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.files import leaves
from jaxdl.runs.checkpoint import Checkpoints

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
    assert sorted(given[0]) == ["0", "1"]
    for array in (*found.values(), *given[0].values()):
        assert np.all(np.asarray(array) == 1)


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
                assert f"Move {folder / '4'} away to go on from step 3" in told
                assert "\n" not in told
                assert same_bits(checkpoints.restore(ZEROS, 3), ZEROS)
        path.write_bytes(data)
    assert refused >= 3


def test_a_flipped_bit_of_a_parameter_is_found(folder, monkeypatch):
    # What Orbax would hand on without a word.
    with Checkpoints(folder) as checkpoints:
        item = checkpoints._item

        def flipped(step, name):
            found = item(step, name)
            return found if name == "record" else {**found, "4": found["4"] + np.float32(1e-7)}

        monkeypatch.setattr(checkpoints, "_item", flipped)
        with pytest.raises(RunError, match="checksum"):
            checkpoints.restore(ZEROS)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({**TREE, "w": np.zeros((3, 5), np.float32)}, r"float32\[3, 4\] there and float32\[3, 5\]"),
        ({**TREE, "w": np.zeros((3, 4), np.int32)}, r"float32\[3, 4\] there and int32\[3, 4\]"),
        ({**TREE, "more": np.zeros(1)}, r"'more'.* absent there"),
        ({"w": TREE["w"]}, "absent here"),
        # What Orbax casts without a word, or takes in another shape than that of its target.
        ({**TREE, "w": np.zeros((4, 3), np.float32)}, r"float32\[3, 4\] there and float32\[4, 3\]"),
        ({**TREE, "w": np.zeros((3, 4), bool)}, r"float32\[3, 4\] there and bool\[3, 4\]"),
        ({**TREE, "w": np.zeros((3, 4), np.float64)}, r"float32\[3, 4\] there and float64\[3, 4\]"),
        ({**TREE, "half": np.zeros(5, np.uint16)}, r"bfloat16\[5\] there and uint16\[5\] here"),
        ({**TREE, "w": 3}, r"'w'\] is float32\[3, 4\] there and int64\[\] here"),
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


# ---- keys of the user's, which are no names of ours


class Point(NamedTuple):
    x: object
    y: object


@jax.tree_util.register_pytree_node_class
class Unnamed:
    """A node that tells JAX nothing of its children's names."""

    def __init__(self, *children):
        self.children = children

    def tree_flatten(self):
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def counted(tree):
    """The tree with a different array in each place."""
    count = iter(range(100))
    return jax.tree.map(lambda _: np.full(2, next(count), np.float32), tree)


CLASHES = {
    "dots": {"a.b": 0, "a": {"b": 0, "": 0}, ".": 0, "..": 0, "a.": {"": 0}, ".a": 0},
    "dotted list": {"a.0": 0, "a": [0, (0,)], "a.1.0": 0},
    "slashes": {"a/b": 0, "a": {"b": 0, "/": 0}, "/": 0, "a//b": 0, "a/": {"b": 0}},
    "quotes": {"it's": 0, '"': 0, "a']['b": 0, "a": {"b": 0}, "[0]": 0, "'a'": {"'": 0}, "\\'": 0},
    "empty": {"": {"": {"": 0, " ": 0}}, " ": 0},
    "int and str": OrderedDict([(1, 0), ("1", 0), (-1, 0), ("b", [0])]),
    "unicode": {"ä": 0, "a\u0308": 0, "\u2028": 0, "a\0": 0, "a": 0, "\ud800": 0, "A": 0},
    "fields": {"p": Point(0, Point(0, 0)), "p.x": 0, ".x": 0, "q": {"x": 0}, "u": Unnamed(0, 0)},
    "nothing": {"a": {}, "b": None, "c": []},
}


@pytest.mark.parametrize("case", CLASHES)
def test_no_keys_make_two_leaves_one(case, tmp_path):
    tree = counted(CLASHES[case])
    like = jax.tree.map(np.zeros_like, tree)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        assert same_bits(checkpoints.restore(like), tree)
        values = [array[0] for _, array in checkpoints.arrays()]
    assert values == list(range(len(values))), "in the order of the tree"


@pytest.mark.parametrize(
    ("saved", "like"),
    [
        ([0, 0], {0: 0, 1: 0}),
        ([0, 0], {"0": 0, "1": 0}),
        ({1: 0}, {"1": 0}),
        ({"a/b": 0}, {"a": {"b": 0}}),
        ({"a.b": 0}, {"a": {"b": 0}}),
        ({"a']['b": 0}, {"a": {"b": 0}}),
        (Point(0, 0), {"x": 0, "y": 0}),
        (OrderedDict(a=0, b=0), OrderedDict(b=0, a=0)),
    ],
)
def test_another_tree_is_refused_however_its_names_read(saved, like, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, counted(saved))
        checkpoints.wait()
        with pytest.raises(RunError, match=r"of another net.*(absent (here|there)|another order)"):
            checkpoints.restore(counted(like))


# ---- what a leaf may be


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_keys_go_on_with_their_stream(impl, tmp_path):
    key = jax.random.key(3, impl=impl)
    tree = {"one": key, "many": jax.random.split(key, (2, 3)), "none": jax.random.split(key, 3)[:0]}
    other = jax.tree.map(lambda leaf: jax.random.clone(leaf), tree)
    other["one"] = jax.random.key(4, impl=impl)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        found = checkpoints.restore(other)
        for name, keys in tree.items():
            assert found[name].dtype == keys.dtype
            assert found[name].shape == keys.shape
        data = [jax.tree.map(jax.random.key_data, each) for each in (found, tree)]
        assert same_bits(*data)
        assert jax.random.normal(found["one"]) == jax.random.normal(key)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (jax.random.key(0, impl="rbg"), r"key<threefry2x32>\[\] there and key<rbg>\[\] here"),
        (jax.random.split(jax.random.key(0)), r"key<threefry2x32>\[\] there and .*\[2\] here"),
        (jax.random.PRNGKey(0), r"key<threefry2x32>\[\] there and uint32\[2\] here"),
    ],
)
def test_keys_of_another_implementation_are_refused(like, words, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": jax.random.key(0)})
        checkpoints.wait()
        with pytest.raises(RunError, match=r"of another .*\['key'\] is " + words):
            checkpoints.restore({"key": like})


def test_numbers_that_jax_would_cast_keep_their_bits(tmp_path):
    assert not jax.config.jax_enable_x64
    tree = {"f": np.array([0.1]), "i": np.array([2**40]), "c": np.array([1e300j]), "scalar": 0.1}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        assert same_bits(checkpoints.restore(jax.tree.map(np.zeros_like, tree)), tree)


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int2", "int4", "uint2", "uint4"],
)
def test_short_numbers_keep_their_bits(dtype, tmp_path):
    tree = {"a": jnp.arange(2).astype(dtype), "scalar": jnp.ones((), dtype)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        assert same_bits(checkpoints.restore(jax.tree.map(jnp.zeros_like, tree)), tree)


def test_scalars_of_numpy_and_other_byte_orders_come_back(tmp_path):
    tree = {"scalar": np.float32(3), "big": np.array([1.5, 2], ">f4")}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        found = checkpoints.restore(tree)
    assert (found["scalar"], found["big"].tolist()) == (3, [1.5, 2])


@pytest.mark.parametrize("leaf", ["text", np.array([None]), np.datetime64("2020-01-01"), b"bytes"])
def test_what_is_no_number_is_refused_by_its_place(leaf, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=r"tree\['a'\]\[0\] is of dtype .*cannot be saved"):
            checkpoints.save(1, {"a": [leaf]})
        assert checkpoints.steps() == []


# ---- a record and arrays that do not belong together


def rewrite(folder, step, change):
    """Changes a record as a later revision or a mix of files would, its checksum included."""
    path = folder / str(step) / "record" / "metadata"
    record = json.loads(path.read_text())
    change(record)
    record["leaves_crc32"] = leaves.crc32_of_record(leaves.from_json(record["leaves"]))
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("like", "said"),
    [
        (np.zeros((4, 3), np.float32), r"\['w'\] is float32\[3, 4\] in it"),
        (np.zeros((3, 4), np.int32), r"\['w'\] is float32\[3, 4\] in it"),
        (np.zeros(12, np.float32), r"\['w'\] is float32\[3, 4\] in it"),
    ],
)
def test_arrays_are_what_their_record_says_or_damaged(folder, like, said):
    # Orbax would cast, or give the stored shape; the bits and so the checksum may be the same.
    def change(record):
        record["leaves"][4][1:] = [like.dtype.name, like.shape]

    rewrite(folder, 4, change)
    with Checkpoints(folder) as checkpoints, pytest.raises(RunError, match=said):
        checkpoints.restore({**ZEROS, "w": like})


def test_a_record_that_changed_is_damaged_and_of_no_other_net(folder):
    path = folder / "4" / "record" / "metadata"
    path.write_text(path.read_text().replace("float32", "float64"))
    with Checkpoints(folder) as checkpoints:
        for read in (lambda: checkpoints.restore(ZEROS), checkpoints.arrays):
            with pytest.raises(RunError, match=r"cannot be read \(the checksum of its record"):
                read()


def test_a_checkpoint_of_a_later_format_is_refused(folder):
    rewrite(folder, 4, lambda record: record.update(format=3))
    with Checkpoints(folder) as checkpoints, pytest.raises(RunError, match="a later jaxdl wrote"):
        checkpoints.restore(ZEROS)


def test_tracebacks_that_follow_from_an_error_are_hidden_in_saves_too(tmp_path, monkeypatch):
    """On a full disk, writes that end after the first error report to a closed event loop."""
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: shown.append(str(raised.exc_value)))

    class Raises:
        """Nobody can catch what `__del__` raises, nor what a thread of TensorStore raises."""

        def __init__(self, text):
            self.text = text

        def __del__(self):
            raise RuntimeError(self.text)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": np.zeros(2)})
        Raises("Event loop is closed")
        Raises("another error")
    assert shown == ["another error"]
