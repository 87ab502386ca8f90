"""A memory is a pytree of arrays: vmap, several devices and checkpoints work as for any other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.replay.prioritized import prioritized
from jaxdl.replay.uniform import reservoir, ring
from jaxdl.runs.checkpoint import Checkpoints
from tests.runs.test_checkpoint import same_bits

RULES = [ring, reservoir, prioritized]


def start(rule):
    return rule(capacity=70).init({"x": jnp.zeros(2), "n": jnp.int32(0)})


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(rule, state, key, steps=30, first=0):
    """Steps that add three items, sample, and give new priorities."""
    memory = rule(capacity=70)

    def step(state, i):
        add_key, sample_key = jax.random.split(jax.random.fold_in(key, i))
        x = jax.random.normal(add_key, (3, 2))
        state = memory.add(add_key, state, {"x": x, "n": jnp.full(3, i)})
        sample = memory.sample(sample_key, state, 4, is_exponent=0.5)
        return memory.update(state, sample.indices, jnp.abs(sample.items["x"][:, 0])), sample

    return lax.scan(step, state, first + jnp.arange(steps))


KEYS = jax.random.split(jax.random.key(5), 2)


def stacked(rule):
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start(rule))


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_a_seed_equals_one_alone(rule):
    many = jax.vmap(lambda state, key: run(rule, state, key))(stacked(rule), KEYS)
    on_two = jax.pmap(lambda state, key: run(rule, state, key))(stacked(rule), KEYS)
    for seed, key in enumerate(KEYS):
        alone = run(rule, start(rule), key)
        for found in (many, on_two):
            here = jax.tree.map(lambda leaf, seed=seed: leaf[seed], found)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), here, alone)


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_that_devices_share_stays_the_same_on_all(rule):
    def on_each(share, state, key):
        del share
        return run(rule, state, key)[0]

    args = start(rule), KEYS[0]
    found = parallel.compile_on(on_each, 2, args)(*args)
    assert parallel.all_equal(found)
    assert same_bits(jax.device_get(found), jax.device_get(run(rule, *args)[0]))


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_from_a_checkpoint_goes_on_as_if_it_had_never_stopped(rule, tmp_path):
    whole, _ = run(rule, start(rule), KEYS[0], 30)
    half, _ = run(rule, start(rule), KEYS[0], 15)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(15, half)
        checkpoints.wait()
        restored = checkpoints.restore(start(rule))
    assert same_bits(restored, half)
    rest, _ = run(rule, restored, KEYS[0], 15, 15)
    assert same_bits(rest, whole)


def sampler(rule):
    """`(key, state) -> what is drawn`."""
    memory = rule(capacity=70)
    return lambda key, state: memory.sample(key, state, 4, is_exponent=0.5)


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_that_a_program_closes_over_gives_what_it_gives_as_an_argument(rule):
    """As in offline learning, where nothing is ever added: the memory is a constant."""
    state, _ = run(rule, start(rule), KEYS[0])
    draw = sampler(rule)
    expected = [draw(key, state) for key in KEYS]
    stacks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)

    constant = lambda key: draw(key, state)  # noqa: E731

    def by_scan(keys):
        return lax.scan(lambda carry, key: (carry, constant(key)), 0, keys)[1]

    def everywhere(keys):
        one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(constant, keys))
        return one_by_one, jax.vmap(constant)(keys), by_scan(keys)

    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    arguments = jax.jit(jax.vmap(draw))(KEYS, pair)
    for found in (*jax.jit(everywhere)(KEYS), jax.vmap(constant)(KEYS), by_scan(KEYS), arguments):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, stacks)


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_memory_is_refused_where_it_is_a_constant(rule):
    draw, state = sampler(rule), start(rule)
    constant = lambda key: draw(key, state)  # noqa: E731
    for program in (
        constant,
        jax.jit(constant),
        jax.vmap(constant),
        lambda keys: lax.scan(lambda carry, key: (carry, draw(key, state)), 0, keys),
    ):
        with pytest.raises(InputError, match="the memory is empty: add items"):
            program(KEYS)
