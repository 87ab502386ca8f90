"""Ring and reservoir against a plain list, and their statistics against what they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.replay.uniform import Memory, reservoir, reservoir_indices, ring

ITEM = {"number": jnp.int32(0), "pair": jnp.zeros(2)}


def items(first, count):
    """Item i holds i, so that rows that were mixed up are seen; None: one item, not a batch."""
    numbers = np.arange(first, first + (1 if count is None else count), dtype=np.int32)
    batch = {"number": numbers, "pair": np.stack([numbers, -numbers], axis=-1).astype(np.float32)}
    return jax.tree.map(lambda leaf: leaf[0], batch) if count is None else batch


def assert_whole(found):
    np.testing.assert_array_equal(found["pair"][:, 0], found["number"])
    np.testing.assert_array_equal(found["pair"][:, 1], -np.asarray(found["number"]))


@functools.cache
def compiled(rule, capacity):
    memory = rule(capacity=capacity)
    return memory.init, jax.jit(memory.add), jax.jit(memory.sample, static_argnums=2)


COUNTS = st.lists(st.sampled_from([None, 0, 1, 2, 7]), max_size=8)


@given(capacity=st.sampled_from([1, 3, 5]), counts=COUNTS, seed=st.integers(0, 99))
@settings(max_examples=40)
@pytest.mark.parametrize("rule", [ring, reservoir])
def test_a_memory_holds_what_a_plain_list_holds(rule, capacity, counts, seed):
    init, add, sample = compiled(rule, capacity)
    state, rows, seen = init(ITEM), {}, 0
    for turn, count in enumerate(counts):
        key = jax.random.fold_in(jax.random.key(seed), turn)
        size = 1 if count is None else count
        indices = np.arange(seen, seen + size) % capacity
        if rule is reservoir:
            indices = np.asarray(reservoir_indices(key, jnp.uint32(seen), size, capacity))
        for number, index in zip(range(seen, seen + size), indices.tolist(), strict=True):
            if index < capacity:
                rows[index] = number
        state = add(key, state, items(seen, count))
        seen += size
    assert sorted(rows) == list(range(len(rows)))  # from the first row on, without a gap
    assert state.size == len(rows) == min(seen, capacity)
    filled = jax.tree.map(lambda leaf: leaf[: len(rows)], state.items)
    np.testing.assert_array_equal(filled["number"], [rows[index] for index in range(len(rows))])
    assert_whole(filled)
    if rows:
        drawn = sample(jax.random.key(seed), state, 20).items
        assert_whole(drawn)
        assert set(np.asarray(drawn["number"]).tolist()) <= set(rows.values())


def test_a_ring_holds_the_newest():
    init, add, _ = compiled(ring, 5)
    state = add(None, add(None, init(ITEM), items(0, 4)), items(4, 7))
    assert sorted(np.asarray(state.items["number"]).tolist()) == [6, 7, 8, 9, 10]


def assert_uniform(counts, low=1e-3):
    """The counts of categories that are equally likely: a chi-square test at a fixed key."""
    assert stats.chisquare(counts).pvalue > low


@pytest.mark.parametrize(("capacity", "added"), [(40, 30), (30, 45)])
@pytest.mark.parametrize("rule", [ring, reservoir])
def test_every_filled_row_is_drawn_alike(rule, capacity, added):
    memory = rule(capacity=capacity)
    state = memory.add(jax.random.key(1), memory.init(ITEM), items(100, added))
    drawn = np.asarray(memory.sample(jax.random.key(2), state, 60_000).items["number"])
    held = np.asarray(state.items["number"][: int(state.size)])
    counts = [np.sum(drawn == number) for number in held]
    assert sum(counts) == len(drawn)
    assert_uniform(counts)


@pytest.mark.parametrize("batch", [None, 1, 4, 40])
def test_a_reservoir_keeps_each_of_n_items_with_the_same_probability(batch):
    # The first as well as the last, one by one as in batches.
    capacity, n, runs = 10, 40, 20_000
    memory = reservoir(capacity=capacity)
    stream = jnp.arange(n) if batch is None else jnp.arange(n).reshape(-1, batch)

    def run(key):
        keys = jax.random.split(key, len(stream))
        add = lambda state, new: (memory.add(new[0], state, new[1]), None)  # noqa: E731
        return lax.scan(add, memory.init(jnp.int32(0)), (keys, stream))[0].items

    held = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(3), runs)))
    assert all(len(set(row)) == capacity for row in held[:100].tolist())
    counts, p = np.bincount(held.ravel(), minlength=n), capacity / n
    # The counts of samples without replacement: their sum is fixed.
    statistic = np.sum((counts - runs * p) ** 2) / (runs * p * (1 - p)) * (n - 1) / n
    assert stats.chi2.sf(statistic, n - 1) > 1e-3


def test_a_reservoir_that_counted_to_the_end_goes_on():
    # Past 2**32 - 1 the count would begin again at 0, and the next items would all be kept.
    last = 2**32 - 1
    memory = reservoir(capacity=3)
    state = Memory(jnp.zeros(3), jnp.int32(3), jnp.uint32(last - 2))
    state = memory.add(jax.random.key(0), state, jnp.ones(5))
    assert int(state.turn) == last
    assert state.size == 3
    assert not state.items.any()
    assert int(memory.add(jax.random.key(1), state, jnp.float32(1)).turn) == last


def test_the_indices_of_a_late_item_are_spread_over_all_that_came():
    indices = jax.vmap(lambda key: reservoir_indices(key, jnp.uint32(10**6 - 1), 1, 10**6 // 2))(
        jax.random.split(jax.random.key(4), 4000)
    )
    kept = np.mean(indices < 10**6 // 2)
    assert abs(kept - 0.5) < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("rule", [ring, reservoir])
@pytest.mark.parametrize("capacity", [0, -3])
def test_no_room_is_refused(rule, capacity):
    with pytest.raises(InputError, match=f"capacity={capacity}: a memory holds at least 1 item"):
        rule(capacity=capacity).init(ITEM)


def test_an_item_of_nothing_is_refused():
    with pytest.raises(InputError, match="nothing to remember"):
        ring(capacity=3).init({})


@pytest.mark.parametrize("rule", [ring, reservoir])
def test_sampling_from_nothing_is_refused_where_it_is_seen(rule):
    memory = rule(capacity=3)
    state = memory.init(ITEM)
    with pytest.raises(InputError, match="the memory is empty: add items before you sample"):
        memory.sample(jax.random.key(0), state, 2)
    # Inside jit it cannot be seen: the docstring says what comes.
    drawn = jax.jit(memory.sample, static_argnums=2)(jax.random.key(0), state, 2)
    assert not any(leaf.any() for leaf in jax.tree.leaves((drawn.items, drawn.indices)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({**ITEM, "pair": jnp.zeros(3)}, r"item\['pair'\] is float32\[3\] here and float32\[2\]"),
        ({**ITEM, "number": jnp.float32(0)}, r"item\['number'\] is float32\[\] here and int32\[\]"),
        ({"number": jnp.zeros((2, 3), jnp.int32), "pair": jnp.zeros((2, 3, 2))}, "one leading"),
        ({"number": jnp.zeros(3, jnp.int32), "pair": jnp.zeros((4, 2))}, "one leading axis"),
        ({"number": jnp.int32(0), "pair": jnp.zeros((1, 2))}, r"item\['pair'\] is float32\[1, 2\]"),
        (
            {"number": jnp.int32(0)},
            r"a dict of \['number'\] here and a dict of \['number'\], \['pa",
        ),
        ((jnp.int32(0), jnp.zeros(2)), r"a tuple of \[0\], \[1\] here"),
    ],
)
@pytest.mark.parametrize("rule", [ring, reservoir])
def test_items_of_another_shape_are_refused_before_anything_compiles(rule, wrong, words):
    memory = rule(capacity=3)
    with pytest.raises(InputError, match=words):
        jax.eval_shape(memory.add, jax.random.key(0), memory.init(ITEM), wrong)


def test_shapes_are_enough_to_make_room():
    shapes = jax.eval_shape(lambda: ITEM)
    assert jax.tree.map(jnp.shape, ring(capacity=3).init(shapes).items) == {
        "number": (3,),
        "pair": (3, 2),
    }
