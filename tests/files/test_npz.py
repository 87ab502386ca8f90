"""What is written is what is read, by NumPy too; what is damaged or no array is refused."""

import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.files import npz

NAMES = [
    "",
    "a",
    "a.npy",
    "a.npy.npy",
    "file",
    "allow_pickle",
    "arr_0",
    "a/b",
    "ä\u2028",
    ".",
    "..",
]


def written(path, arrays):
    with path.open("wb") as file:
        npz.write(file, arrays)
    return path


def members(path, **content):
    """A zip of these members, made by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_any_name_comes_back_with_its_own_array(tmp_path):
    arrays = {name: np.array(i) for i, name in enumerate(NAMES)}
    found = npz.read(written(tmp_path / "a.npz", arrays))
    assert found.pop(npz.CONTENTS).tolist() == sorted(NAMES)
    assert {name: int(array) for name, array in found.items()} == {
        name: i for i, name in enumerate(NAMES)
    }


def test_numpy_reads_it_and_it_reads_what_numpy_writes(tmp_path):
    arrays = {
        "x": np.arange(6.0).reshape(2, 3).T,
        "n": np.array(["a", "bc"]),
        "e": np.zeros((0, 2)),
    }
    with np.load(written(tmp_path / "ours.npz", arrays)) as found:
        assert sorted(found.files) == sorted([*arrays, npz.CONTENTS])
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", **arrays)
        read = npz.read(tmp_path / "theirs.npz")
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 70_000, npz.CONTENTS])
def test_names_that_a_zip_would_change_are_refused(name):
    with pytest.raises(InputError, match="cannot be called"):
        npz.write(io.BytesIO(), {name: np.zeros(1)})


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(1, [("a", object)])])
def test_objects_are_not_written(array):
    with pytest.raises(InputError, match=r"'x' is of dtype .*, which .npz files do not hold"):
        npz.write(io.BytesIO(), {"x": array})


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e5m2", "int4"])
def test_dtypes_that_would_become_bytes_are_not_written(dtype):
    with pytest.raises(InputError, match=f"'x' is of dtype {dtype}, which .npz files do not hold"):
        npz.write(io.BytesIO(), {"x": np.zeros(1, jnp.dtype(dtype))})


def test_pickles_and_texts_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([None]))
    with pytest.raises(ValueError, match="'x' holds objects"):
        npz.read(tmp_path / "a.npz")
    members(tmp_path / "b.npz", **{"x.npy": npy(np.ones(1)), "readme.txt": "hello, this is text"})
    with pytest.raises(ValueError, match="magic string"):
        npz.read(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError):
        npz.read(tmp_path / "c.npz")


def header(shape, descr="<f4", version=1):
    """A `.npy` of no content, whose header may say anything."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header("(1000000, 1000000)"), "'x' has another number of bytes than its shape"),
        (header(f"({10**30},)"), "'x' has another number of bytes than its shape"),
        (header("(-1, -4)"), "'x' has another number of bytes than its shape"),
        (header("(2,)", version=9), r"'x' is of version \(9, 0\) of NumPy's format"),
        (header("(" * 300 + ")" * 300), "."),
        (header("(" * 50), "."),  # never closed: NumPy's parser has an error of its own for it
        (header("{'a"), "."),
        (header(f"({4 * 10**12},)", descr="|S0"), "'x' has another number of bytes than its shape"),
        (header(f"({4 * 10**12},)", descr="<U0"), "'x' has another number of bytes than its shape"),
        (header("(2,)", descr="O"), "'x' holds objects"),
        (b"no array", "magic string"),
        (b"", "."),
    ],
)
def test_sizes_are_checked_before_memory_is_asked_for(tmp_path, content, says):
    members(tmp_path / "a.npz", **{"x.npy": content})
    with pytest.raises(ValueError, match=says):
        npz.read(tmp_path / "a.npz")


def test_what_would_unpack_to_a_hundred_times_its_size_is_refused(tmp_path):
    """80 MB of zeros from 80 kB. Without compression they are an array like any other."""
    zeros = np.zeros(80_000_000, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=zeros)
    with pytest.raises(ValueError, match=r"would unpack from [\d,]+ to 80,000,128 bytes: save"):
        npz.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=zeros)
    assert npz.read(tmp_path / "b.npz")["x"].nbytes == 80_000_000


def test_many_arrays_that_together_unpack_to_a_hundred_times_their_size_are_refused(tmp_path):
    """40 MB each, which one alone may be."""
    zeros = np.zeros(40_000_000, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=zeros)
    assert npz.read(tmp_path / "a.npz")["x"].nbytes == 40_000_000
    np.savez_compressed(tmp_path / "b.npz", x=zeros, y=zeros)
    with pytest.raises(ValueError, match=r"would unpack from [\d,]+ to 80,000,256 bytes: save"):
        npz.read(tmp_path / "b.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bytes_that_no_decoder_takes_are_told_by_the_decoder(tmp_path, method):
    """A byte of each sixteenth of the file."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", npy(np.arange(50.0)))
    content, refused = path.read_bytes(), list[str]()
    for at in range(0, len(content), len(content) // 16):
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        try:
            assert npz.read(path)["x"].tolist() == list(range(50))
        except KeyError:  # the name alone has changed
            continue
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 9
    assert not {"", "None"} & set(refused)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    members(tmp_path / "a.npz", **{"x.npy": npy(np.zeros(1)), "x": npy(np.ones(1))})
    with pytest.raises(ValueError, match="two arrays are called 'x'"):
        npz.read(tmp_path / "a.npz")


def test_a_missing_array_is_missed(tmp_path):
    contents = npy(np.array(["x", "y"]))
    members(tmp_path / "a.npz", **{"x.npy": npy(np.zeros(1)), f"{npz.CONTENTS}.npy": contents})
    with pytest.raises(ValueError, match="arrays are missing"):
        npz.read(tmp_path / "a.npz")


def test_one_changed_bit_of_a_shape_is_found(tmp_path):
    """So large that NumPy stops to read before the end, where the zip's checksum is looked at."""
    path = written(tmp_path / "a.npz", {"x": np.ones((30_000, 4), np.float32)})
    content = bytearray(path.read_bytes())
    content[content.index(b"(30000, 4)") + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="'x' has another number of bytes than its shape"):
        npz.read(path)


def test_any_one_changed_bit_is_found_or_harmless(tmp_path):
    arrays = {"x": np.arange(3, dtype=np.uint8), "y": np.zeros((2, 1), np.float32)}
    path = written(tmp_path / "a.npz", arrays)
    content, found = path.read_bytes(), 0
    for place in range(0, 8 * len(content), 5):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            read = npz.read(path)  # dates and the like may differ, arrays may not
        except (ValueError, OSError):
            found += 1
            continue
        if npz.CONTENTS in read:  # else whoever wants it misses it
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[name], array)
    assert found > len(content)
