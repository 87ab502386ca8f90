"""Learnt step sizes: which optimisers read them, and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.meta import inner
from jaxdl.meta.inner import descend
from jaxdl.meta.rates import scale_by_rates

START = {"w": jnp.asarray([2.0, -1.0]), "b": jnp.asarray(3.0)}
ALL = {"w": True, "b": True}


def bowl(params, key):
    """Half the square: a step of size r leaves 1 - r of each parameter."""
    del key
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)) / 2, {}


def own(update):
    """A transformation without a state, by its update alone."""
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scaled(updates, rates):
    return jax.tree.map(lambda leaf: -rates * leaf, updates)


def remembered():
    """Takes the rate of the step before: only its state looks at this step's."""

    def update(updates, state, params=None, *, rates, **_):
        return scaled(updates, state), rates

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)


def in_a_branch(updates, state, params=None, *, rates, **_):
    first = jax.tree.leaves(updates)[0].ravel()[0]
    return lax.cond(first < 1e9, scaled, lambda updates, _: updates, updates, rates), state


compiled = jax.jit(scaled)
label = {"w": "learnt", "b": "fixed"}
READERS = {
    "alone": scale_by_rates(),
    "chain": optax.chain(optax.identity(), scale_by_rates()),
    "chain of chains": optax.chain(optax.chain(optax.trace(0.0), optax.chain(scale_by_rates()))),
    "named chain": optax.named_chain(("first", optax.identity()), ("last", scale_by_rates())),
    "masked": optax.masked(scale_by_rates(), ALL),
    "if finite": optax.apply_if_finite(scale_by_rates(), 3),
    "own": own(lambda updates, state, params, *, rates: (scaled(updates, rates), state)),
    "own, compiled": own(
        lambda updates, state, params, *, rates, **_: (compiled(updates, rates), state)
    ),
    "own, in a branch": own(in_a_branch),
}
ignored = jax.jit(lambda updates, rates: jax.tree.map(lambda leaf: -0.1 * leaf, updates))
DEAF = {
    "sgd": optax.sgd(0.1),
    "adam": optax.adam(0.1),
    "with support": optax.with_extra_args_support(optax.sgd(0.1)),
    "chain": optax.chain(optax.clip(1.0), optax.sgd(0.1)),
    "masked": optax.masked(optax.sgd(0.1), ALL),
    "partition": optax.partition({"learnt": optax.sgd(0.1), "fixed": optax.sgd(0.2)}, label),
    "own": own(lambda updates, state, params=None, **_: (updates, state)),
    "own, compiled": own(
        lambda updates, state, params=None, *, rates: (ignored(updates, rates), state)
    ),
}


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("tx", READERS.values(), ids=READERS)
def test_who_reads_rates_takes_the_steps_that_they_say(tx, steps):
    """Inside the transformations around an inner loop, where every number is traced."""
    rates = jnp.asarray([0.1, 0.3, 0.6])[:steps]

    def final(scale, rates):
        start = jax.tree.map(lambda leaf: scale * leaf, START)
        return descend(bowl, start, tx, steps=steps, rates=rates)[0]

    by_rates = jax.grad(lambda scale, rates: bowl(final(scale, rates), None)[0], argnums=1)
    batch = jnp.asarray([1.0, 2.0])
    over = jax.jit(jax.vmap(lambda scale: (final(scale, rates), by_rates(scale, rates))))
    found, slopes = over(batch)
    left = 1 - np.asarray(rates, np.float64)
    for name, leaf in START.items():
        expected = np.multiply.outer(np.asarray(batch), np.asarray(leaf)) * left.prod()
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    energy = float(bowl(START, None)[0]) * left.prod() ** 2
    expected = np.multiply.outer(np.asarray(batch) ** 2, -2 * energy / left)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4)


def test_of_a_partition_one_part_may_read_them():
    tx = optax.partition({"learnt": scale_by_rates(), "fixed": optax.sgd(0.5)}, label)
    rates = {"w": jnp.asarray([0.1, 0.2]), "b": jnp.asarray([0.7, 0.7])}
    found, _ = descend(bowl, START, tx, steps=2, rates=rates)
    np.testing.assert_allclose(found["w"], START["w"] * 0.9 * 0.8, rtol=1e-6)
    np.testing.assert_allclose(found["b"], START["b"] * 0.25, rtol=1e-6)


def test_a_state_may_read_them():
    found, _ = descend(bowl, START, remembered(), steps=3, rates=jnp.asarray([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(found["w"], START["w"] * 0.9 * 0.8, rtol=1e-6)


@pytest.mark.parametrize("tx", DEAF.values(), ids=DEAF)
def test_rates_that_nobody_reads_are_refused(tx):
    says = r"the inner optimiser does not read rates, .*: chain scale_by_rates\(\)"
    for steps in (0, 1, 2):
        with pytest.raises(InputError, match=says):
            descend(bowl, START, tx, steps=steps, rates=jnp.full(steps, 0.1))


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_not_one_rate_per_step_is_refused(steps, shape):
    """One step used to take the first of them."""
    rates = {"w": jnp.zeros((steps, 2)), "b": jnp.zeros(shape)}
    says = rf"rates\['b'\] is \[.*\], and there are {steps} inner steps: .* \[{steps}\]"
    with pytest.raises(InputError, match=says):
        descend(bowl, START, scale_by_rates(), steps=steps, rates=rates)
    with pytest.raises(InputError, match=r"rates\[0\] is \[\], and there are 2 inner steps"):
        descend(bowl, START, scale_by_rates(), steps=2, rates=[0.1, 0.1])


def test_who_scales_by_rates_must_be_given_some():
    with pytest.raises(InputError, match="scale_by_rates needs rates"):
        descend(bowl, START, scale_by_rates(), steps=2)


def test_rates_may_be_a_prefix_of_the_parameters():
    tx = scale_by_rates()
    grads = {"a": {"w": jnp.ones(2), "b": jnp.ones(3)}, "c": jnp.ones(1)}
    updates, _ = tx.update(grads, tx.init(grads), rates={"a": 2.0, "c": jnp.asarray([5.0])})
    np.testing.assert_array_equal(updates["a"]["w"], [-2, -2])
    np.testing.assert_array_equal(updates["a"]["b"], [-2, -2, -2])
    np.testing.assert_array_equal(updates["c"], [-5])


def test_looking_costs_the_program_nothing(monkeypatch):
    tx, rates = optax.chain(optax.trace(0.9), scale_by_rates()), jnp.full(2, 0.1)

    def program():
        final = partial(descend, bowl, tx=tx, steps=2, rates=rates)
        return jax.jit(lambda start: final(start)[0]).lower(START).as_text()

    with_check = program()
    monkeypatch.setattr(inner, "check_rates", lambda *_: None)
    assert with_check == program()
