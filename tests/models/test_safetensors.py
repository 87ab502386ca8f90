"""Headers made by hand: what the format allows is read, and all else has its sentence."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models import safetensors
from jaxdl.models.torch_weights import read_tensors

FLOATS = np.arange(6, dtype="<f4")


def entry(
    first: Any = 0, last: Any = 24, dtype: Any = "F32", shape: Any = (2, 3)
) -> dict[str, Any]:
    shape = list(shape) if isinstance(shape, tuple) else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def made(header: Any, data: bytes = FLOATS.tobytes(), pad: str = "") -> bytes:
    """A file of this header, an object or its text, and these bytes of tensors."""
    text = (header if isinstance(header, str) else json.dumps(header)) + pad
    return len(text.encode()).to_bytes(8, "little") + text.encode() + data


def test_tensors_are_read_wherever_they_lie() -> None:
    header = {
        "b": entry(4, 20, shape=(2, 2)),
        "__metadata__": {"format": "pt", "": "x"},
        "a": {**entry(0, 4, shape=()), "more": 1},
        "e": entry(4, 4, shape=(0, 7), dtype="F64"),
        "c/ü": entry(20, 24, "U8", (4,)),
    }
    found = safetensors.read(made(header, pad="   "))
    assert list(found) == ["b", "a", "e", "c/ü"]
    np.testing.assert_array_equal(found["a"], 0)
    np.testing.assert_array_equal(found["b"], [[1, 2], [3, 4]])
    assert (found["e"].shape, found["e"].dtype) == ((0, 7), np.float64)
    assert found["c/ü"].tobytes() == FLOATS[5:].tobytes()


@pytest.mark.parametrize("header", [{}, {"__metadata__": {}}])
def test_a_file_may_hold_no_tensor(header: Any) -> None:
    assert safetensors.read(made(header, b"")) == {}


NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("dtype", NAMES)
def test_each_dtype_is_that_of_numpy(dtype: str) -> None:
    array = np.array([0, 1, 1]).astype(jnp.dtype(dtype))
    header = {"x": entry(0, array.nbytes, NAMES[dtype], (3,))}
    found = safetensors.read(made(header, array.tobytes()))["x"]
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


TWO = {"a": entry(0, 12, shape=(3,)), "b": entry(12, 24, shape=(3,))}
WRONG: dict[str, tuple[Any, str]] = {
    # the header as a text
    "no object": ("[]", "does not begin with {"),
    "a space first": (" {}", "does not begin with {"),
    "no JSON": ("{nothing", "Expecting property name"),
    "two objects": ("{}{}", "Extra data"),
    "a name twice": (f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}', "'a' is there"),
    "a field twice": ('{"a": {"dtype": "F32", "dtype": "F32"}}', "'dtype' is there twice"),
    "NaN": ('{"a": {"shape": [NaN]}}', "NaN is no number of JSON"),
    "half a pair": ('{"\\ud800": {}}', "surrogates not allowed"),
    # metadata
    "metadata of numbers": ({"__metadata__": {"a": 1}, "x": entry()}, "__metadata__ is no object"),
    "metadata as a list": ({"__metadata__": ["a"], "x": entry()}, "__metadata__ is no object"),
    # one entry
    "a list": ({"x": []}, "'x' is no object"),
    "a field less": (
        {"x": {"dtype": "F32", "shape": [6]}},
        "'x' lacks dtype, shape or data_offsets",
    ),
    "unknown dtype": ({"x": entry(dtype="F4")}, "'x' is of none of the dtypes BOOL"),
    "a dtype in small letters": ({"x": entry(dtype="f32")}, "'x' is of none of the dtypes"),
    "a list as dtype": ({"x": entry(dtype=["F32"])}, "'x' is of none of the dtypes"),
    "a number as shape": ({"x": entry(shape=6)}, "'x' has a shape"),
    "a negative shape": ({"x": entry(shape=(-2, -3))}, "'x' has a shape"),
    "a shape of floats": ({"x": entry(shape=(2.0, 3))}, "'x' has a shape"),
    "a shape of truths": ({"x": entry(0, 4, shape=(True, 1))}, "'x' has a shape"),
    "a shape of texts": ({"x": entry(shape=("6",))}, "'x' has a shape"),
    "negative offsets": ({"x": entry(-24, 0)}, "'x' has data_offsets"),
    "a negative begin": ({"x": entry(-4, 20)}, "'x' has data_offsets"),
    "offsets of floats": ({"x": entry(0.0, 24.0)}, "'x' has data_offsets"),
    "offsets of truths": ({"x": entry(False, 24)}, "'x' has data_offsets"),
    "three offsets": ({"x": {**entry(), "data_offsets": [0, 12, 24]}}, "'x' has data_offsets"),
    "no list of offsets": ({"x": {**entry(), "data_offsets": {"0": 24}}}, "'x' has data_offsets"),
    "end before begin": ({"x": entry(24, 0)}, "'x' ends before it begins"),
    "end after the file": ({"x": entry(0, 28, shape=(7,))}, "'x' ends after the file"),
    "too few bytes": ({"x": entry(0, 20)}, "'x' has another number of bytes"),
    "too many bytes": ({"x": entry(shape=(5,))}, "'x' has another number of bytes"),
    "bytes of no shape": ({"x": entry(0, 24, shape=(0,))}, "'x' has another number of bytes"),
    # all entries
    "shared bytes": ({**TWO, "b": entry(8, 24, shape=(4,))}, "'b' shares bytes with another"),
    "the same bytes": ({"a": entry(), "b": entry()}, "'b' shares bytes with another"),
    "nothing within": ({**TWO, "c": entry(4, 4, shape=(0,))}, "'c' shares bytes|'a' shares bytes"),
    "a hole": ({**TWO, "b": entry(16, 24, shape=(2,))}, "the 4 bytes before 'b' belong to no"),
    "a hole at the start": ({"b": TWO["b"]}, "the 12 bytes before 'b' belong to no tensor"),
    "bytes left": ({"a": TWO["a"]}, "the last 12 bytes belong to no tensor"),
    "only bytes": ({}, "the last 24 bytes belong to no tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_header_that_is_wrong_has_its_sentence(case: str, tmp_path: Path) -> None:
    header, words = WRONG[case]
    path = tmp_path / "net.safetensors"
    path.write_bytes(made(header))
    with pytest.raises(InputError, match=r"is no \.safetensors file of numbers: ") as error:
        read_tensors(path)
    assert any(each in str(error.value) for each in words.split("|"))
    assert str(error.value).endswith(". Fetch or write it again")
    assert "\n" not in str(error.value)


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        safetensors.read((2).to_bytes(8, "little") + b"{\xff")
    with pytest.raises(ValueError, match="does not begin"):
        safetensors.read(made("{}".encode("utf-16").decode("latin-1"), b""))


@pytest.mark.parametrize("size", [0, 7, 8, 40, -1])
def test_a_file_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        safetensors.read(made({"x": entry()})[:size])


@pytest.mark.parametrize("length", [2**63 - 8, 2**64 - 1, 10**6])
def test_the_length_of_a_header_is_not_believed(length: int) -> None:
    with pytest.raises(ValueError, match="its header is cut off"):
        safetensors.read(length.to_bytes(8, "little") + b"{}")


def test_a_header_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "_MOST", 20)
    with pytest.raises(ValueError, match="its header is longer than 20 bytes"):
        safetensors.read(made({"x": entry()}))
