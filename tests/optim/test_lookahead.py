"""Lookahead against its recursion, written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.optim.lookahead import lookahead, with_slow
from jaxdl.train.steps import init_state, make_step


def counting(key, state, batch):
    """A step that adds the batch to the parameters, and twice that to the statistics."""
    params, stats = state.params + batch, {**state.stats, "mean": state.stats["mean"] + 2 * batch}
    opt_state = jax.tree.map(lambda leaf: leaf + 1, state.opt_state)
    return state._replace(step=state.step + 1, params=params, stats=stats, opt_state=opt_state), {}


@pytest.mark.parametrize(("steps", "closing"), [(6, False), (7, False), (6, True), (7, True)])
def test_the_slow_net_follows_and_the_end_is_it(steps, closing, key):
    values = np.random.default_rng(0).normal(size=(steps, 3)).astype(np.float32)
    shares = 1 / np.arange(2, steps + 3)
    constant = jnp.float32([0.1, 0.7])
    stats = {"mean": jnp.zeros(3), "constant": constant}
    state = init_state(jnp.zeros(3), optax.sgd(0.1, momentum=0.9), stats)
    state = with_slow(state._replace(opt_state=jnp.int32(0)))
    step = jax.jit(
        lookahead(
            counting,
            every=3,
            keep=lambda i: jnp.asarray(shares, jnp.float32)[i],
            steps=steps if closing else None,
        )
    )
    slow = fast = np.zeros(3)
    for i, value in enumerate(values, 1):
        state, _ = step(key, state, value)
        fast = fast + value
        if i % 3 == 0:
            slow = fast = shares[i] * slow + (1 - shares[i]) * fast
        if closing and i == steps:
            fast = slow
        np.testing.assert_allclose(state.params, fast, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.opt_state.params, slow, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.stats["mean"], 2 * fast, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.stats["constant"], constant)
    assert state.opt_state.inner == steps


def test_no_step_between_updates_is_refused():
    with pytest.raises(InputError, match="`every=0`: choose at least 1"):
        lookahead(lambda key, state, batch: (state, {}), every=0, keep=lambda done: 0.5)


def test_its_state_may_be_donated():
    tx = optax.sgd(0.1)
    step = make_step(lambda key, step, params, batch: (params, {}), tx)
    state = with_slow(init_state(jnp.ones(3), tx))
    donated = jax.jit(lookahead(step, every=2, keep=lambda done: 0.5), donate_argnums=1)
    assert np.isfinite(donated(jax.random.key(0), state, None)[0].params).all()
