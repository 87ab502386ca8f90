"""Recalling old examples: which, how many, and without a copy of the memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxdl.continual import episodic
from jaxdl.continual.base import recall, stored
from jaxdl.continual.er import er
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import mlp
from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import reservoir, ring
from jaxdl.types import Example
from tests.continual.contract import QUICK

CAPACITY = 10_007  # a number that nothing else in the programs has
COPY = re.compile(rf"= \w+\[{CAPACITY}\b\S* copy\(")


def numbered(n):
    return Example(jnp.full(3, n, jnp.uint8), jnp.int32(n), jnp.int32(0))


def test_old_examples_are_drawn_from_before_the_new_one_and_as_many_as_there_are():
    replay, count = reservoir(capacity=50), 4

    def body(memory, n):
        before = memory.size
        past, memory = recall(replay, jax.random.fold_in(key, n), memory, numbered(n), count, 2)
        return memory, (before, past)

    key = jax.random.key(0)
    empty = replay.init(stored(numbered(0)))
    memory, (sizes, past) = jax.jit(lambda memory: lax.scan(body, memory, jnp.arange(40)))(empty)
    np.testing.assert_array_equal(sizes, np.arange(40))
    np.testing.assert_array_equal(memory.items.y[:40], np.arange(40))
    np.testing.assert_array_equal(past.x, np.repeat(past.y[..., None], 3, axis=2))
    for n in range(40):
        counted = np.asarray(past.weight[n])
        expected = np.arange(count) < min(count, n)
        np.testing.assert_array_equal(counted, np.tile(expected, 2))
        assert np.all(past.y[n][counted > 0] < n)
    drawn = np.concatenate([past.y[n] for n in range(20, 40)])
    assert len(np.unique(drawn)) > 20  # uniformly, not the first few again and again


@pytest.mark.parametrize("rule", [ring, prioritized])
def test_old_examples_are_recalled_from_any_memory(rule):
    replay, key = rule(capacity=5), jax.random.key(2)
    memory = replay.init(stored(numbered(0)))
    run = jax.jit(lambda memory, n: recall(replay, key, memory, numbered(n), 2))
    for n in range(7):
        past, memory = run(memory, n)
        assert np.asarray(past.weight).tolist() == [n > 0, n > 1]
        assert all(max(0, n - 5) <= y < n for y in past.y[past.weight > 0].tolist())
    assert replay.size(memory) == 5


def test_a_memory_that_a_program_closes_over_gives_what_it_gives_as_an_argument():
    replay, key = reservoir(capacity=5), jax.random.key(3)
    many = jax.vmap(numbered)(jnp.arange(1, 4))
    memory = replay.add(key, replay.init(stored(numbered(0))), jax.vmap(stored)(many))
    rings = episodic.empty(numbered(0), 2, 3)
    for n in range(1, 4):
        rings = jax.jit(episodic.remember)(rings, numbered(n)._replace(task=jnp.int32(n % 2)))

    def drawn(key, memory, rings):
        past, _ = recall(replay, key, memory, numbered(9), 4)
        return past, episodic.draw_others(key, rings, jnp.int32(0), 4)

    expected = jax.jit(drawn, compiler_options=QUICK)(key, memory, rings)
    found = jax.jit(lambda key: drawn(key, memory, rings), compiler_options=QUICK)(key)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found[0].y.min() > 0


def test_drawing_and_then_adding_copies_no_memory():
    method = er(mlp((2,)), cross_entropy, optax.sgd(0.1), capacity=CAPACITY, replay_batch_size=5)
    like = Example(jnp.zeros(3), jnp.int32(0), jnp.int32(0))
    state = jax.eval_shape(method.init, jax.random.key(0), like)

    def run(state, key):
        def body(i, state):
            return method.step(jax.random.fold_in(key, i), state, like)[0]

        return lax.fori_loop(0, 9, body, state)

    program = jax.jit(run, donate_argnums=0).lower(state, jax.random.key(0)).compile()
    assert not COPY.findall(program.as_text())
    assert program.memory_analysis().temp_size_in_bytes < CAPACITY


def test_a_reservoir_holds_a_sample_of_all_that_came():
    """After 3,000 examples a memory of 200 has members of every tenth of the stream."""
    method = er(mlp((2,)), cross_entropy, optax.sgd(0.1), capacity=200, replay_batch_size=2)

    def body(state, n):
        new = Example(jnp.ones(3) * n / 3000, n % 2, jnp.int32(0))
        return method.step(jax.random.fold_in(jax.random.key(1), n), state, new)[0], None

    run = jax.jit(lambda s: lax.scan(body, s, jnp.arange(3000))[0], compiler_options=QUICK)
    state = run(method.init(jax.random.key(0), Example(jnp.ones(3), jnp.int32(0), jnp.int32(0))))
    assert int(state.memory.size) == 200
    tenths = np.bincount((10 * np.asarray(state.memory.items.x[:, 0])).astype(int), minlength=10)
    # Binomial(200, 0.1) is in [7, 36] but for one case in 10,000.
    assert tenths.min() >= 7
    assert tenths.max() <= 36


@pytest.mark.parametrize(("tasks", "each"), [(0, 3), (3, 0), (-2, -3)])
def test_rings_without_tasks_or_memory_are_refused(tasks, each):
    with pytest.raises(
        InputError, match=f"tasks={tasks}, memory_per_task={each} is too small. Choose"
    ):
        episodic.empty(numbered(0), tasks, each)
