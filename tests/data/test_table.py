"""Draws without replacement, beside the shuffle that they are the start of."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxdl.data.table import at_rows, check_examples, origins, sorted_table, without_replacement


def assert_uniform(values, n):
    observed = np.bincount(np.ravel(values), minlength=n)
    assert len(observed) == n
    assert stats.chisquare(observed).pvalue > 1e-3, observed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([1, 2, 5, 12]), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_without_replacement_is_the_start_of_a_fisher_yates_shuffle(k, more, seed):
    n = k + more
    jitted = jax.jit(without_replacement)
    bits = np.random.default_rng(seed).integers(0, 2**32, k, dtype=np.uint32)
    places = list(range(n))
    for i in range(k):
        j = i + int(bits[i]) % (n - i)
        places[i], places[j] = places[j], places[i]
    np.testing.assert_array_equal(jitted(jnp.asarray(bits), n), places[:k])


@pytest.mark.parametrize(("k", "n"), [(4, 4), (3, 5), (1, 9), (2, 8)])
def test_each_ordered_choice_is_equally_likely(k, n):
    bits = jax.random.bits(jax.random.key(k), (8000, k))
    drawn = np.asarray(jax.jit(jax.vmap(lambda b: without_replacement(b, n)))(bits))
    number = {choice: i for i, choice in enumerate(itertools.permutations(range(n), k))}
    assert_uniform([number[tuple(row)] for row in drawn.tolist()], len(number))


def test_a_long_chain_of_swaps_is_followed_to_its_end():
    # Step i takes the place of step i + 1, so that what lay at place 0 wanders to the end.
    k = 33
    bits = jnp.array([1] * (k - 1) + [0], jnp.uint32)
    np.testing.assert_array_equal(without_replacement(bits, k), [*range(1, k), 0])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_more_draws_than_there_are_begin_with_all_of_them(n):
    bits = jax.random.bits(jax.random.key(n), (500, 6))
    drawn = np.asarray(jax.jit(jax.vmap(lambda b: without_replacement(b, n)))(bits))
    np.testing.assert_array_equal(np.sort(drawn[:, :n], axis=1), np.tile(np.arange(n), (500, 1)))
    np.testing.assert_array_equal(drawn[:, n:], np.tile(np.arange(n, 6), (500, 1)))
    same = jax.vmap(lambda b: without_replacement(b, n))(bits[:, :n])
    np.testing.assert_array_equal(drawn[:, :n], same)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_steps_in_any_places_are_those_of_a_shuffle(k, seed):
    """Two shuffles, of places 0 to 29 and 100 to 129, whose steps come in a mixed order."""
    rng = np.random.default_rng(seed)
    first = 100 * rng.integers(0, 2, k)
    done = np.array([np.sum(first[:i] == first[i]) for i in range(k)])
    places, others = first + done, first + rng.integers(done, 30)
    held, expected = list(range(130)), []
    for place, other in zip(places, others, strict=True):
        expected.append(held[other])
        held[place], held[other] = held[other], held[place]
    swapped, origin = jax.jit(origins)(jnp.asarray(places), jnp.asarray(others))
    np.testing.assert_array_equal(np.where(swapped, places[origin], others), expected)


def test_a_table_is_sorted_and_repeats_a_row_where_it_is_padded():
    x = {"a": np.arange(1, 7, dtype=np.int32), "b": np.arange(1.0, 13.0).reshape(6, 2)}
    places = np.array([2, 0, 1, 2, 0, 2])
    for weights in (None, np.arange(1, 7, dtype=np.float32)):
        examples = check_examples(x, places, weights, None)
        table = sorted_table(examples, np.array([0, 2]), padded=True)
        np.testing.assert_array_equal(table.x["a"], [2, 5, 1, 4, 6, 2])
        np.testing.assert_array_equal(table.x["b"][:, 1], [4, 10, 2, 8, 12, 4])
        assert (table.starts.tolist(), table.counts.tolist()) == ([0, 2], [2, 3])
        assert table.padding == 5
        x_of, weight = at_rows(table, jnp.array([[1, 5]]))
        assert x_of["a"].tolist() == [[5, 2]]
        assert weight.tolist() == [[1 if weights is None else 5, 0]]
    table = sorted_table(check_examples(x, places, None, None), np.arange(3), padded=False)
    assert table.weights is None
    assert table.x["a"].tolist() == [2, 5, 3, 1, 4, 6]
    assert at_rows(table, jnp.array([0]))[1] is None
