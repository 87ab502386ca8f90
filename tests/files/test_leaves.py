"""Paths are told apart, read back from JSON, and named; numbers keep their bits."""

import json
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.files import leaves
from jaxdl.files.leaves import Leaf
from jaxdl.types import TrainState

STATE = TrainState(np.int32(0), {"a": [np.zeros((2, 3), np.float32)]}, {1: np.ones(2, bool)})


def test_leaves_are_described_in_the_order_of_jax():
    assert leaves.described({"s": STATE, "k": jax.random.split(jax.random.key(0))}) == [
        Leaf((("str", "k"),), "key<threefry2x32>", (2,)),
        Leaf((("str", "s"), ("attribute", "step")), "int32", ()),
        Leaf(
            (("str", "s"), ("attribute", "params"), ("str", "a"), ("index", "0")),
            "float32",
            (2, 3),
        ),
        Leaf((("str", "s"), ("attribute", "opt_state"), ("int", "1")), "bool", (2,)),
    ]


def test_json_gives_the_leaves_back():
    tree = {"s": STATE, "\ud800\0": 1, "": {"\u2028": 2}}
    found = leaves.described(tree)
    again = leaves.from_json(json.loads(json.dumps(found)))
    assert again == found
    assert leaves.crc32_of_record(again) == leaves.crc32_of_record(found)
    assert leaves.crc32_of_record(found[1:]) != leaves.crc32_of_record(found)


def test_a_path_is_shown_as_python_writes_it_and_named_by_its_texts():
    path = leaves.described({"s": STATE})[2].path
    assert leaves.shown(path) == "['s'].opt_state[int 1]"
    assert leaves.name(path) == "s/opt_state/1"
    shown = [leaves.shown(leaf.path) for leaf in leaves.described({"s": STATE, "it's": [0]})]
    assert shown[:2] == ['["it\'s"][0]', "['s'].step"]


def test_names_that_two_have_are_refused():
    assert leaves.by_name([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    with pytest.raises(InputError, match="have the one name 'a': rename a layer"):
        leaves.by_name([("a", 1), ("b", 2), ("a", 3)])


def test_format_1_says_as_much_of_a_tree_as_it_said_of_it_before():
    """What the revision before wrote, copied from it."""
    recorded = {
        "['s'].step": "int32[]",
        "['s'].params['a'][0]": "float32[2, 3]",
        "['s'].opt_state[1]": "bool[2]",
    }
    found = leaves.from_format_1(recorded)
    tree = {"s": STATE}
    assert found == leaves.as_in_format_1(tree, leaves.described(tree))
    assert [leaves.name(leaf.path) for leaf in found] == [
        leaves.name(leaf.path) for leaf in leaves.described(tree)
    ]
    other = {"s": STATE._replace(params={"b": STATE.params["a"]})}
    assert found != leaves.as_in_format_1(other, leaves.described(other))


def test_keys_that_format_1_cannot_take_apart_stay_apart():
    trees = [{"a']['b": 0}, {"a": {"b": 0}}, {"it's": 0}, {"its": 0}, {"'": {"'": 0}}]
    paths = [leaves.as_in_format_1(tree, leaves.described(tree))[0].path for tree in trees]
    assert len(set(paths)) == len(trees)


DTYPES = [
    *("bool", "int8", "uint64", "float16", "float64", "complex64", "bfloat16", "float8_e4m3fn"),
    *("float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "int2", "uint4"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 2)])
def test_numbered_arrays_are_of_plain_dtypes_and_give_the_bits_back(dtype, shape):
    rng, dtype = np.random.default_rng(0), jnp.dtype(dtype)
    short = {"int2": 4, "uint4": 16, "float4_e2m1fn": 16}.get(dtype.name, 2)
    data = rng.integers(0, short, (*shape, dtype.itemsize), np.uint8)
    array = np.frombuffer(data.tobytes(), dtype).reshape(shape)
    found = leaves.described([array])
    stored = leaves.numbered([array])
    assert all(each.size and each.dtype.isbuiltin == 1 for each in stored.values())
    (again,) = leaves.from_numbered(stored, found)
    assert (again.dtype, again.shape, again.tobytes()) == (dtype, shape, array.tobytes())


@pytest.mark.parametrize(
    "wrong",
    [Leaf((), "int32", (2,)), Leaf((), "float32", (1, 2)), Leaf((), "key<rbg>", (2,))],
)
def test_arrays_of_another_leaf_are_refused(wrong):
    with pytest.raises(ValueError, match=r"is float32\[2\] in it"):
        leaves.from_numbered({"0": np.ones(2, np.float32)}, [wrong])


def test_the_host_gets_copies_in_native_order():
    host, swapped = np.ones(2), np.array([1, 2], ">i2")
    found = leaves.on_host(OrderedDict(a=host, b=swapped, c=jnp.int8(3), d=0.5))
    host[:] = 7
    assert [array.tolist() for array in found] == [[1, 1], [1, 2], 3, 0.5]
    assert all(array.dtype.isnative for array in found)
    assert leaves.crc32(found) != leaves.crc32(found[::-1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e5m2", "complex64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_in_every_dtype(dtype, value):
    array = np.array([0, value, 1]).astype(jnp.dtype(dtype))
    assert not leaves.is_finite(array)
    assert not leaves.is_finite(jnp.asarray(array))
    assert leaves.is_finite(array[::2])


def test_whole_numbers_are_finite():
    assert leaves.is_finite(np.array([True]))
    assert leaves.is_finite(np.array([2**62]))
