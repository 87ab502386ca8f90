"""The sum tree against a plain list of numbers, and its draws against their probabilities."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import stats

from jaxdl.replay import sumtree
from jaxdl.replay.sumtree import FAN


def assert_sums(tree):
    """Each level holds the sums of the groups below it, and zeros past them, up to one group."""
    for below, above in itertools.pairwise(tree):
        sums = np.asarray(above).ravel()
        np.testing.assert_allclose(sums[: len(below)], np.float64(below).sum(1), rtol=1e-6)
        assert not sums[len(below) :].any()
    assert len(tree[-1]) == 1


@functools.cache
def compiled():
    return jax.jit(sumtree.put), jax.jit(sumtree.draw, static_argnums=2)


@pytest.mark.parametrize(
    ("capacity", "levels"),
    [(1, 1), (FAN, 1), (FAN + 1, 2), (FAN**2, 2), (FAN**2 + 1, 3), (10**6, 5)],
)
def test_levels(capacity, levels):
    tree = sumtree.zeros(capacity)
    assert len(tree) == levels
    assert capacity <= tree[0].size < capacity + FAN
    assert all(level.shape[1] == FAN for level in tree)
    assert_sums(tree)


SIZES = [1, FAN, FAN + 1, FAN**2 + 1]
NUMBERS = st.floats(0, 1e6, width=32, allow_subnormal=False)


@given(data=st.data(), capacity=st.sampled_from(SIZES))
@settings(max_examples=40)
def test_sums_hold_after_any_updates(data, capacity):
    put, draw = compiled()
    tree, expected = sumtree.zeros(capacity), {}
    indices = st.integers(0, capacity - 1)
    for update in data.draw(st.lists(st.dictionaries(indices, NUMBERS, max_size=4), max_size=6)):
        # Four at once, always, so that one program serves: what is missing goes past the end.
        at = [*update, *range(tree[0].size, tree[0].size + 4 - len(update))]
        values = [*update.values(), *[3.0] * (4 - len(update))]
        tree = put(tree, jnp.array(at, jnp.int32), jnp.array(values, jnp.float32))
        expected |= update
    assert_sums(tree)
    numbers = np.zeros(tree[0].size, np.float32)
    numbers[list(expected)] = list(expected.values())
    np.testing.assert_array_equal(np.asarray(tree[0]).ravel(), numbers)
    np.testing.assert_array_equal(sumtree.get(tree, jnp.arange(len(numbers))), numbers)
    if numbers.any():
        assert numbers[np.asarray(draw(jax.random.key(0), tree, 16))].all()


def test_a_number_that_is_left_out_of_the_sums_is_zero():
    """As XLA counts on a CPU: half of the least normal number, beside 0 and beside that number."""
    least = np.finfo(np.float32).tiny
    tree = compiled()[0](sumtree.zeros(3), jnp.arange(2), jnp.asarray([least / 2, least]))
    np.testing.assert_array_equal(sumtree.get(tree, jnp.arange(3)), [0, least, 0])
    np.testing.assert_array_equal(compiled()[1](jax.random.key(0), tree, 9), 1)


def filled(numbers):
    put, _ = compiled()
    tree = sumtree.zeros(len(numbers))
    return put(tree, jnp.arange(len(numbers)), jnp.asarray(numbers, jnp.float32))


@pytest.mark.parametrize("capacity", [5, 200, FAN**2 + 200])
@pytest.mark.parametrize("count", [1, 32])
def test_indices_are_drawn_in_proportion_to_their_numbers(capacity, count):
    numbers = np.random.default_rng(0).exponential(size=capacity) + 0.1
    numbers[1::5] = 0
    keys = jax.random.split(jax.random.key(1), 200_000 // count)
    tree = filled(numbers)
    drawn = jax.jit(jax.vmap(lambda key: sumtree.draw(key, tree, count)))(keys)
    counts = np.bincount(np.ravel(drawn), minlength=capacity)
    assert not counts[numbers == 0].any()
    expected = (numbers / numbers.sum() * counts.sum())[numbers > 0]
    assert stats.chisquare(counts[numbers > 0], expected).pvalue > 1e-3


def test_a_draw_is_stratified():
    _, draw = compiled()
    # As many equal numbers as strata: each comes exactly once, where independent draws repeat some.
    drawn = draw(jax.random.key(0), filled(np.full(FAN, 0.3)), FAN)
    np.testing.assert_array_equal(drawn, np.arange(FAN))
    # Over two levels each group comes as often as it weighs.
    drawn = draw(jax.random.key(0), filled(np.ones(4 * FAN)), 64)
    np.testing.assert_array_equal(np.bincount(np.asarray(drawn) // FAN), 16)


def test_a_million_indices_are_drawn_alike():
    # One float32 for the whole way down gives each index 8 or 9 of its 2**23 values: those with 9
    # would have 41.7 % of the draws and not 38.9 %.
    capacity, draws = 10**6, 100_000
    values = np.bincount(np.arange(2**23, dtype=np.int64) * capacity // 2**23)
    tree = filled(np.ones(capacity))
    drawn = jax.jit(jax.vmap(lambda key: sumtree.draw(key, tree, 1)[0]))(
        jax.random.split(jax.random.key(0), draws)
    )
    share, expected = np.mean(values[drawn] == 9), np.mean(values == 9)
    assert abs(share - expected) < 4 * np.sqrt(expected / draws)
    assert stats.chisquare(np.bincount(drawn // 10_000, minlength=100)).pvalue > 1e-3


def test_the_ends_of_the_range_are_drawn_and_never_a_zero(monkeypatch):
    # The smallest and the largest random number, numbers with zeros on either side, and sums whose
    # rounding leaves the largest number beyond the others.
    @jax.jit
    def draw(tree, u):
        monkeypatch.setattr(jax.random, "uniform", lambda _, shape: jnp.full(shape, u))
        return sumtree.draw(jax.random.key(0), tree, 3)

    for numbers in ([0, 0, 1, 0], [0, 1e-6, 1e6, 0], [0.1] * 63 + [0], [1e-30, 0, 0, 0]):
        tree = filled(np.array([*numbers, *np.zeros(7 * FAN - len(numbers))]))
        for u in (0.0, 1 - 2.0**-24, 0.5):
            indices = np.asarray(draw(tree, jnp.float32(u)))
            assert np.asarray(tree[0]).ravel()[indices].all()


def test_rounding_does_not_gather_over_many_updates():
    # A tree that adds differences is 1e-3 away after so many.
    def body(i, tree):
        index_key, value_key = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        indices = jax.random.randint(index_key, (1,), 0, 300)
        return sumtree.put(tree, indices, 10.0 ** jax.random.uniform(value_key, (1,), maxval=6))

    tree = lax.fori_loop(0, 20_000, body, sumtree.zeros(300))
    assert_sums(tree)
    total = np.float64(tree[0]).sum()
    np.testing.assert_allclose(np.float64(tree[-1]).sum(), total, rtol=1e-6)
