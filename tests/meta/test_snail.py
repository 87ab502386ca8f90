"""SNAIL: each answer by the paper's blocks on one sequence, in NumPy; what a step may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.context import Context
from jaxdl.models.context_snail import context_snail

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
EXAMPLES, QUERIES = (np.float32(RNG.normal(size=(n, 3))) for n in (5, 2))
NET = context_snail(length=6, out=2, filters=2)
CONTEXT = Context(jnp.asarray(EXAMPLES), jnp.ones(5), jnp.asarray(QUERIES))
PARAMS = jax.jit(NET.init)(KEY, CONTEXT)
APPLY = jax.jit(NET.apply)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dense(params, x):
    return x @ np.asarray(params["kernel"], float) + np.asarray(params["bias"], float)


def by_hand(params, sequence):
    """All steps of one sequence, as the paper's pseudo-code has them."""
    x, block = np.asarray(sequence, float), 0
    for place, keys in enumerate((1, 4, 8)):
        layers = params[f"AttentionBlock_{place}"]
        q, k, v = (dense(layers[f"Dense_{i}"], x) for i in range(3))
        scores = np.exp(q @ k.T / np.sqrt(keys)) * np.tril(np.ones((len(x), len(x))))
        x = np.concatenate([x, scores @ v / scores.sum(axis=1, keepdims=True)], axis=1)
        for rate in (1, 2, 4) if place < 2 else ():
            before = np.concatenate([np.zeros((rate, x.shape[1])), x])[: len(x)]
            both = np.concatenate([before, x], axis=1)
            value, gate = np.split(dense(params[f"DenseBlock_{block}"]["Dense_0"], both), 2, axis=1)
            x, block = np.concatenate([x, np.tanh(value) * sigmoid(gate)], axis=1), block + 1
    return dense(params["Dense_0"], x)


def test_a_query_is_the_last_step_of_a_sequence_of_its_own():
    found = APPLY(PARAMS, CONTEXT)
    expected = [by_hand(PARAMS, np.concatenate([EXAMPLES, row[None]]))[-1] for row in QUERIES]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_an_example_sees_none_that_comes_later():
    """A change of example 3 reaches the queries, and no step before 3, in the net by hand; and the
    net without the last two examples answers as by hand at step 3."""
    changed = EXAMPLES.copy()
    changed[3] += 1
    steps = [by_hand(PARAMS, np.concatenate([each, QUERIES[:1]])) for each in (EXAMPLES, changed)]
    np.testing.assert_array_equal(steps[0][:3], steps[1][:3])
    assert not np.allclose(steps[0][3:], steps[1][3:])
    asked = CONTEXT._replace(
        weight=jnp.array([1.0, 1, 1, 0, 0]), queries=jnp.asarray(EXAMPLES[3:4])
    )
    np.testing.assert_allclose(APPLY(PARAMS, asked)[0], steps[0][3], rtol=1e-3, atol=1e-5)


def test_widths_are_those_of_the_paper():
    shapes = jax.eval_shape(context_snail(length=6, out=2).init, KEY, CONTEXT)
    blocks = [shapes[f"AttentionBlock_{place}"] for place in range(3)]
    widths = [(each["Dense_0"]["bias"].size, each["Dense_2"]["bias"].size) for each in blocks]
    assert widths == [(64, 32), (256, 128), (512, 256)]
    assert shapes["DenseBlock_5"]["Dense_0"]["bias"].shape == (2 * 128,)  # three levels, twice


def test_a_length_of_one_is_refused():
    with pytest.raises(InputError, match="SNAIL cannot have length=1, filters=2 and out=2"):
        context_snail(1, 2, filters=2)
