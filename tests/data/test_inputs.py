"""Inputs of any type and structure, each array by the same rule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.episodes import few_shot
from jaxdl.data.inputs import as_inputs, check_inputs
from jaxdl.errors import InputError

LABELS = np.arange(12) // 4


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


def drawn(x, **options):
    sample = few_shot(x, LABELS, ways=3, shots=1, queries=3, **options)
    support, query = jax.jit(sample)(jax.random.key(0))
    return jax.tree.map(lambda *parts: np.concatenate(parts), support.x, query.x)


@pytest.mark.parametrize(
    ("dtype", "becomes", "factor"),
    [
        (np.uint8, np.float32, 1 / 255),
        (np.float16, np.float32, 1),
        (jnp.bfloat16, np.float32, 1),
        (np.float64, np.float32, 1),
        (np.int8, np.int32, 1),
        (np.uint16, np.int32, 1),
        (np.int64, np.int32, 1),
        (np.uint64, np.int32, 1),
        (bool, np.bool_, 1),
    ],
)
def test_every_type_has_its_rule_alone_and_in_a_structure(dtype, becomes, factor):
    values = (np.arange(12) + 100 * (dtype == np.uint8)).astype(dtype)
    ids = np.arange(12, dtype=np.int32)
    alone = drawn(values)
    together = drawn({"x": (values, ids), "more": Pair(ids[:, None], values)})
    assert alone.dtype == together["x"][0].dtype == becomes
    order = together["x"][1]
    assert sorted(order) == list(range(12))
    assert together["more"].left.shape == (12, 1)
    np.testing.assert_allclose(alone.astype(float), values[order].astype(float) * factor, rtol=1e-6)
    np.testing.assert_array_equal(together["x"][0], alone)
    np.testing.assert_array_equal(together["more"].right, alone)


def test_a_structure_draws_the_same_examples_as_one_array():
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.testing.assert_array_equal(drawn(x), drawn({"only": x})["only"])


def test_a_scale_is_for_bytes_and_floats_and_leaves_tokens_alone():
    x = {"image": np.full((12, 2), 7, np.uint8), "table": np.full(12, 3.0), "tokens": np.arange(12)}
    found = drawn(x, scale=2.0)
    assert (found["image"] == 14).all()
    assert (found["table"] == 6).all()
    assert sorted(found["tokens"]) == list(range(12))


def test_a_list_is_one_array():
    np.testing.assert_array_equal(drawn([[float(i), 1.0] for i in range(12)])[:, 1], np.ones(12))


def test_padding_is_an_example_in_every_leaf():
    x = {"image": np.full(12, 9, np.uint8), "tokens": np.full(12, 5), "mask": np.ones(12, bool)}
    sample = few_shot(x, LABELS, ways=(1, 3), shots=(1, 2), queries=2)
    support = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 50)).support
    real = np.asarray(support.weight) > 0
    assert 0 < real.mean() < 1
    for name, value in {"image": 9 / 255, "tokens": 5, "mask": True}.items():
        np.testing.assert_allclose(support.x[name], value, rtol=1e-6)
    assert support.x["tokens"].dtype == jnp.int32
    assert support.x["mask"].dtype == bool


def test_what_is_stored_is_what_was_given():
    """Bytes stay bytes on the device: a quarter of the memory."""
    stored = check_inputs({"a": np.zeros((3, 2), np.uint8), "b": np.zeros(3), "c": np.arange(3)})
    assert [str(leaf.dtype) for leaf in stored.values()] == ["uint8", "float32", "int32"]
    inputs = jax.eval_shape(lambda x: as_inputs(x, None), stored)
    assert [str(leaf.dtype) for leaf in inputs.values()] == ["float32", "float32", "int32"]


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        ({}, "there are no images in an empty structure"),
        ({"a": np.zeros(12), "b": np.zeros(11)}, r"x\['b'\] has 11 rows, but x\['a'\] has 12"),
        ((np.zeros(12), np.zeros(13)), r"x\[1\] has 13 rows, but x\[0\] has 12\. Give each"),
        (
            {"a": np.zeros(12), "b": np.array("text")},
            r"x\['b'\]: there are no images in shape \[\]",
        ),
        ({"a": np.full(12, np.nan)}, r"x\['a'\]: inputs contain NaN or infinity"),
        ({"a": np.array(["x"] * 12)}, r"x\['a'\] is <U1, but must be numbers or bools\. Give text"),
        (np.array(["x"] * 12), "x is <U1, but must be numbers or bools"),
        (np.array([None] * 12), "x is object, but must be numbers"),
        (np.zeros(12, complex), "x is complex128, but must be numbers or bools"),
        ({"a": np.full(12, 2**31)}, r"x\['a'\] has integers from 2147483648 to 2147483648, which"),
        (np.full(12, -(2**31) - 1), "which do not fit into int32. Number the tokens from 0"),
    ],
)
def test_what_is_no_input_is_refused_by_the_name_of_its_leaf(x, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        few_shot(x, LABELS, ways=3, shots=1, queries=1)
    assert "\n" not in str(error.value)


def test_the_limits_of_int32_are_allowed():
    x = np.array([2**31 - 1, -(2**31)] * 6)
    assert set(drawn(x).tolist()) == {2**31 - 1, -(2**31)}
