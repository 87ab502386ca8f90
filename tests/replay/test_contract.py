"""What every memory promises: one interface, one learner for all. Add a row to `RULES`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import reservoir, ring
from jaxdl.types import Replay, Sample
from tests.replay.test_uniform import ITEM, assert_whole, items

RULES = [ring, reservoir, prioritized]
UNIFORM = [ring, reservoir]
rules = pytest.mark.parametrize("rule", RULES)


def stored(memory, state):
    """The rows of a memory, wherever its state keeps them."""
    return state.memory.items if hasattr(state, "memory") else state.items


def filled(rule, count, capacity=9):
    memory = rule(capacity=capacity)
    return memory, memory.add(jax.random.key(1), memory.init(ITEM), items(0, count))


@rules
def test_is_five_functions_with_the_names_of_the_protocol(rule):
    memory = rule(capacity=3)
    assert isinstance(memory, Replay)
    names = [list(inspect.signature(f).parameters) for f in memory]
    assert names == [
        ["item"],
        ["key", "state", "items"],
        ["key", "state", "count", "is_exponent"],
        ["state", "indices", "priorities"],
        ["state"],
    ]
    exponent = inspect.signature(memory.sample).parameters["is_exponent"]
    assert (exponent.kind, exponent.default) == (exponent.KEYWORD_ONLY, 1.0)


@rules
@pytest.mark.parametrize("count", [0, 1, 8, 9, 23])
def test_size_is_how_many_items_there_are(rule, count):
    memory, state = filled(rule, count)
    size = jax.jit(memory.size)(state)
    assert (size.shape, size.dtype) == ((), jnp.int32)
    assert size == min(count, 9)


@rules
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_sample_says_how_much_each_item_counts_and_where_it_stands(rule, exponent):
    memory, state = filled(rule, 23)
    state = memory.update(state, jnp.arange(9), jnp.arange(1.0, 10.0))
    sample = memory.sample(jax.random.key(2), state, 40, is_exponent=exponent)
    assert isinstance(sample, Sample)
    assert_whole(sample.items)
    assert (sample.indices.shape, sample.indices.dtype) == ((40,), jnp.int32)
    here = jax.tree.map(lambda row: row[sample.indices], stored(memory, state))
    jax.tree.map(np.testing.assert_array_equal, sample.items, here)
    assert (sample.weights.shape, sample.weights.dtype) == ((40,), jnp.float32)
    assert sample.weights.max() == 1
    alike = rule in UNIFORM or exponent == 0
    assert alike == bool((sample.weights == 1).all())


@pytest.mark.parametrize("rule", UNIFORM)
def test_a_memory_without_priorities_gives_its_state_back(rule):
    """Leaf by leaf the very same arrays: no program computes anything."""
    memory, state = filled(rule, 5)
    after = memory.update(state, jnp.arange(2), jnp.array([0.0, jnp.nan]))
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
    assert all(one is other for one, other in pairs)


def test_new_priorities_change_what_is_drawn():
    memory, state = filled(prioritized, 9)
    state = memory.update(state, jnp.arange(9), (jnp.arange(9) == 4).astype(jnp.float32))
    assert set(np.asarray(memory.sample(jax.random.key(3), state, 20).indices).tolist()) == {4}


def test_by_default_weights_undo_all_of_the_preference():
    memory, state = filled(prioritized, 9)
    state = memory.update(state, jnp.arange(9), jnp.arange(1.0, 10.0))
    given, default = (
        memory.sample(jax.random.key(4), state, 20, **options)
        for options in ({"is_exponent": 1.0}, {})
    )
    jax.tree.map(np.testing.assert_array_equal, given, default)
    priorities = np.arange(1.0, 10.0)[np.asarray(given.indices)] ** 0.6
    np.testing.assert_allclose(given.weights, priorities.min() / priorities, rtol=1e-5)
