"""Prioritized replay against a plain list of priorities and the formulas of the paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import ring
from tests.replay.test_sumtree import assert_sums
from tests.replay.test_uniform import ITEM, assert_whole, items
from tests.replay.test_uniform import compiled as of_ring

ALPHA = 0.7


@functools.cache
def compiled(capacity, alpha=ALPHA):
    memory = prioritized(capacity=capacity, alpha=alpha)
    sample = jax.jit(memory.sample, static_argnums=2)
    return memory.init, jax.jit(memory.add), sample, jax.jit(memory.update)


ADDS = st.sampled_from([None, 1, 2, 7])
UPDATES = st.lists(
    st.tuples(st.integers(-2, 80), st.floats(0, 100, width=32, allow_subnormal=False)),
    min_size=3,
    max_size=3,
)


@given(capacity=st.sampled_from([1, 5, 70]), operations=st.lists(ADDS | UPDATES, max_size=10))
@settings(max_examples=60)
def test_priorities_are_those_of_a_plain_list(capacity, operations):
    init, add, sample, update = compiled(capacity)
    plain_init, plain_add, _ = of_ring(ring, capacity)
    state, rows, seen = init(ITEM), plain_init(ITEM), 0
    priorities, largest = {}, 1.0
    for operation in operations:
        if isinstance(operation, list):
            at, values = zip(*operation, strict=True)
            state = update(state, jnp.array(at, jnp.int32), jnp.array(values, jnp.float32))
            for index, value in operation:  # of equal indices the last counts
                if index in priorities:
                    priorities[index] = value
                    largest = max(largest, value)
        else:
            new = items(seen, operation)
            state, rows = add(None, state, new), plain_add(None, rows, new)
            for _ in range(operation or 1):
                priorities[seen % capacity] = largest
                seen += 1
    jax.tree.map(np.testing.assert_array_equal, state.memory, rows)
    assert_sums(state.tree)
    expected = np.zeros(state.tree[0].size)
    expected[list(priorities)] = np.array(list(priorities.values())) ** ALPHA
    np.testing.assert_allclose(np.ravel(state.tree[0]), expected, rtol=1e-5)
    np.testing.assert_allclose(state.largest, largest**ALPHA, rtol=1e-5)
    if expected.any():
        drawn = sample(jax.random.key(seen), state, 8, is_exponent=0.5)
        assert_whole(drawn.items)
        assert expected[drawn.indices].all()
        np.testing.assert_array_equal(drawn.items["number"], rows.items["number"][drawn.indices])


def with_priorities(priorities, alpha=ALPHA, capacity=100):
    init, add, sample, update = compiled(capacity, alpha)
    state = add(None, init(ITEM), items(0, len(priorities)))
    return update(state, jnp.arange(len(priorities)), jnp.asarray(priorities, jnp.float32)), sample


@pytest.mark.parametrize("alpha", [0, 0.6, 1])
def test_items_are_drawn_in_proportion_to_priority_to_the_alpha(alpha):
    priorities = np.random.default_rng(0).exponential(size=80) + 0.01
    state, sample = with_priorities(priorities, alpha)
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(lambda key: sample(key, state, 32, is_exponent=1.0).indices)(keys)
    counts = np.bincount(np.ravel(drawn), minlength=80)
    expected = priorities**alpha / np.sum(priorities**alpha) * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_weights_are_those_of_the_formula(exponent):
    priorities = np.random.default_rng(0).exponential(size=80) + 0.01
    state, sample = with_priorities(priorities)
    drawn = sample(jax.random.key(0), state, 32, is_exponent=exponent)
    probabilities = priorities**ALPHA / np.sum(priorities**ALPHA)
    weights = (len(priorities) * probabilities[drawn.indices]) ** -exponent
    np.testing.assert_allclose(drawn.weights, weights / weights.max(), rtol=1e-5)


def test_weights_at_an_exponent_of_one_undo_the_priorities():
    # The estimate of a mean over all items is that of uniform sampling, up to the scale.
    priorities = np.random.default_rng(0).exponential(size=80) + 0.1
    state, sample = with_priorities(priorities, alpha=1.0)
    values = jnp.arange(80.0)

    def estimate(key):
        _, _, indices = sample(key, state, 32, is_exponent=1.0)
        probability = jnp.asarray(priorities / priorities.sum(), jnp.float32)[indices]
        return jnp.mean(values[indices] / (80 * probability))

    means = np.asarray(jax.vmap(estimate)(jax.random.split(jax.random.key(2), 4000)))
    assert abs(means.mean() - 39.5) < 4 * means.std() / np.sqrt(len(means))


def test_a_priority_of_zero_is_never_drawn():
    state, sample = with_priorities([0.0, 1.0, 0.0, 2.0])
    drawn = sample(jax.random.key(0), state, 100, is_exponent=0.5)
    assert set(np.asarray(drawn.indices).tolist()) == {1, 3}


def test_without_any_priority_all_items_are_drawn_alike_as_with_equal_ones():
    """The limit of equal priorities that go to 0; the rows past the last item are never drawn."""
    state, sample = with_priorities(np.zeros(7))
    drawn = sample(jax.random.key(0), state, 7000, is_exponent=0.5)
    counts = np.bincount(drawn.indices, minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 1e-3
    np.testing.assert_array_equal(drawn.weights, 1)
    np.testing.assert_array_equal(drawn.items["number"], drawn.indices)


def test_no_item_at_all_is_a_batch_without_rows():
    state, sample = with_priorities([1.0, 2.0])
    drawn = sample(jax.random.key(0), state, 0, is_exponent=0.5)
    assert (drawn.indices.shape, drawn.weights.shape, drawn.items["pair"].shape) == (
        (0,),
        (0,),
        (0, 2),
    )


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(InputError, match=r"alpha=.*: choose 0"):
        prioritized(capacity=3, alpha=alpha)


@pytest.mark.parametrize("exponent", [-0.1, 1.5, float("nan")])
def test_an_exponent_out_of_range_is_refused_or_seen_in_the_weights(exponent):
    state, sample = with_priorities([1.0, 2.0])
    alone = prioritized(capacity=100, alpha=ALPHA).sample
    for known in (exponent, jnp.float32(exponent)):  # a constant of the program has a value, too
        with pytest.raises(InputError, match=r"is_exponent=.*: choose a number from 0 to 1"):
            alone(jax.random.key(0), state, 3, is_exponent=known)
        with pytest.raises(InputError, match=r"is_exponent=.*: choose a number from 0 to 1"):
            jax.jit(
                lambda state, known=known: alone(jax.random.key(0), state, 3, is_exponent=known)
            )(state)
    assert np.isnan(sample(jax.random.key(0), state, 3, is_exponent=exponent).weights).all()


def test_an_exponent_that_a_schedule_ends_a_rounding_above_one_is_one():
    state, sample = with_priorities([1.0, 2.0])
    above = np.nextafter(np.float32(1), np.float32(2))
    drawn, at_one = (
        sample(jax.random.key(0), state, 9, is_exponent=exponent).weights
        for exponent in (above, 1.0)
    )
    np.testing.assert_allclose(drawn, at_one, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_priority_out_of_range_is_refused_or_seen_in_the_weights(wrong, alpha):
    state, sample = with_priorities([1.0, 2.0, 3.0], alpha)
    update = prioritized(capacity=100, alpha=alpha).update
    indices, values = jnp.arange(2), jnp.asarray([1.0, wrong])
    with pytest.raises(InputError, match=r"priority .*: give finite ones"):
        update(state, indices, values)
    spoilt = jax.jit(update)(state, indices, values)
    assert np.isnan(sample(jax.random.key(0), spoilt, 3, is_exponent=0.5).weights).all()


def test_no_room_and_nothing_and_other_shapes_are_refused():
    with pytest.raises(InputError, match="capacity=0"):
        prioritized(capacity=0).init(ITEM)
    memory = prioritized(capacity=3)
    with pytest.raises(InputError, match="the memory is empty"):
        memory.sample(jax.random.key(0), memory.init(ITEM), 2, is_exponent=0.5)
    with pytest.raises(InputError, match="a dict of"):
        memory.add(None, memory.init(ITEM), {"number": jnp.int32(0)})


def test_a_wrong_priority_goes_with_its_item():
    """New items get the largest of the right ones."""
    memory = prioritized(capacity=4, alpha=0.6)
    state = memory.add(None, memory.init(jnp.float32(0)), jnp.arange(2.0))
    state = jax.jit(memory.update)(state, jnp.array([0, 1]), jnp.array([jnp.inf, 2.0]))
    assert np.isnan(memory.sample(jax.random.key(0), state, 3).weights).all()
    state = memory.update(state, jnp.array([0]), jnp.array([1.0]))
    state = memory.add(None, state, jnp.arange(1.0))
    assert np.isfinite(memory.sample(jax.random.key(0), state, 3).weights).all()
    np.testing.assert_allclose(state.largest, 2**0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "priority"), [(2.0, 1e16), (1.0, 3e38), (0.5, 2e38), (0.05, 2e38), (0.0, 2e38)]
)
def test_a_power_that_cannot_be_added_up_is_refused(alpha, priority):
    memory = prioritized(capacity=2, alpha=alpha)
    state = memory.add(None, memory.init(jnp.float32(0)), jnp.arange(2.0))
    if priority**alpha > 1e30:
        with pytest.raises(InputError, match=r"whose power `alpha=.*` is at most 1e.30"):
            memory.update(state, np.array([0, 1]), np.full(2, priority, np.float32))
    else:
        state = memory.update(state, jnp.array([0, 1]), jnp.full(2, priority))
        assert np.isfinite(memory.sample(jax.random.key(0), state, 3).weights).all()


def test_it_works_among_doubles():
    with jax.enable_x64(True):
        memory = prioritized(capacity=4)
        state = memory.add(None, memory.init(jnp.float32(0)), jnp.arange(2, dtype=jnp.float32))
        sample = jax.jit(memory.sample, static_argnums=2)(jax.random.key(0), state, 3)
        state = jax.jit(memory.update)(state, sample.indices, jnp.ones(3))
        assert sample.indices.dtype == jnp.int32
