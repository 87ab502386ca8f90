"""Schedules against their closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.optim.schedules import cosine


@pytest.mark.parametrize("decay_steps", [1, 7, 50])
def test_a_cosine_falls_to_zero_and_stays_there(decay_steps):
    steps = np.arange(2 * decay_steps + 3)
    expected = 0.3 * np.cos(np.pi / 2 * np.minimum(steps / decay_steps, 1)) ** 2
    found = jax.vmap(cosine(0.3, decay_steps))(jnp.asarray(steps))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert (np.asarray(found[decay_steps:]) == 0).all()


def test_without_decay_the_rate_is_a_number_of_which_an_optimiser_keeps_no_count():
    assert cosine(0.3, 0) == 0.3
    states = (optax.sgd(rate).init(jnp.zeros(2)) for rate in (cosine(0.3, 0), 0.3))
    first, second = map(jax.tree.structure, states)
    assert first == second
