"""A memory is overwritten in place: no program that adds to one holds a second copy of it.

Read from what XLA compiled: the bytes that a program takes beside its arguments, and its copies.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.sumtree import FAN
from jaxdl.replay.uniform import reservoir, ring

CAPACITY = 100_003  # a number that nothing else in the programs has
GROUPS = -(-CAPACITY // FAN)
COPY = re.compile(rf"= \w+\[(?:{CAPACITY}\b|{GROUPS},{FAN}\])\S* copy\(")
ITEM = {"obs": jnp.zeros(4), "action": jnp.int32(0), "done": jnp.bool_(False)}
BATCH = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), ITEM)
KEY = jax.random.key(0)
MEMORIES = {rule.__name__: rule(capacity=CAPACITY) for rule in (ring, reservoir, prioritized)}


def assert_in_place(run, state):
    program = jax.jit(run, donate_argnums=0).lower(state).compile()
    memory = program.memory_analysis()
    assert not COPY.findall(program.as_text())
    assert memory.alias_size_in_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert memory.temp_size_in_bytes < CAPACITY  # one byte an item: less than any array of it


def scanned(body):
    return lambda state: lax.scan(body, state, jax.random.split(KEY, 5))


def learning(memory, state, key):
    """A sample, all of which is looked at, and new priorities, which do not depend on it all."""
    items, weights, indices = memory.sample(key, state, 32, is_exponent=0.5)
    state = memory.update(state, indices, jnp.abs(items["obs"][:, 0]))
    return state, total((items, weights))


def total(tree):
    return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("items", [ITEM, BATCH], ids=["one", "batch"])
@pytest.mark.parametrize("name", MEMORIES)
def test_adding_to_a_donated_memory_copies_nothing(name, items):
    memory = MEMORIES[name]
    assert_in_place(lambda state: memory.add(KEY, state, items), memory.init(ITEM))


@pytest.mark.parametrize("name", MEMORIES)
def test_a_loop_that_adds_and_learns_copies_nothing(name):
    memory = MEMORIES[name]

    def body(state, key):
        return learning(memory, memory.add(key, state, ITEM), key)

    assert_in_place(scanned(body), memory.init(ITEM))


def test_a_loop_that_learns_and_then_adds_copies_nothing_where_update_stands_between():
    memory = MEMORIES["prioritized"]

    def body(state, key):
        state, value = learning(memory, state, key)
        return memory.add(key, state, ITEM), value

    assert_in_place(scanned(body), memory.init(ITEM))


@pytest.mark.parametrize("name", ["ring", "reservoir"])
def test_a_loop_that_adds_and_reads_on_condition_copies_nothing(name):
    memory = MEMORIES[name]

    def body(state, key):
        state = lax.cond(
            jax.random.bernoulli(key),
            lambda state: memory.add(key, state, ITEM),
            lambda s: s,
            state,
        )
        sample = lambda state: total(memory.sample(key, state, 32).items)  # noqa: E731
        return state, lax.cond(memory.size(state) > 9, sample, lambda _: 0.0, state)

    assert_in_place(scanned(body), memory.init(ITEM))
