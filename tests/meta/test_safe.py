"""The safe forms against finite differences, and against those of Optax where these are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.meta import inner
from jaxdl.meta.probe.faults import is_finite, is_off
from jaxdl.meta.probe.slopes import slopes
from tests.meta.inner_table import LR, STRIDE, measure, points, then_sgd

SAFE = {
    "adam": inner.adam(LR, eps_root=1e-3),
    "adam, default": inner.adam(LR),
    "rmsprop": inner.rmsprop(LR, eps=1e-3),
    "rmsprop, default": inner.rmsprop(LR),
    "rmsprop, momentum": inner.rmsprop(LR, eps=1e-3, momentum=0.9, nesterov=True),
    "radam": inner.radam(LR, eps_root=1e-3, b2=0.9),
    "clip that acts": then_sgd(inner.clip_by_global_norm(0.5)),
    "clip that never acts": then_sgd(inner.clip_by_global_norm(1e6)),
}
STEPS = {"radam": 8}
"""With these numbers RAdam turns from momentum to Adam at its seventh step."""


def found(name, dtype=np.float64):
    return measure(lambda loss: SAFE[name], dtype, steps=STEPS.get(name, 3))


@pytest.mark.parametrize("name", SAFE)
def test_meta_gradients_are_those_of_finite_differences(name):
    """A dead unit, a mask, a fitted support set and zero biases included."""
    measured = found(name)
    for point in STRIDE:
        assert measured.finite(point), point
        if not (point == "flat" and "default" in name):  # too steep: see the test below
            assert measured.error(point) < (0.02 if point == "flat" else 1e-5), point


@pytest.mark.parametrize("name", SAFE)
def test_float32_gives_what_float64_gives(name):
    measured, single = found(name), found(name, np.float32)
    for point in STRIDE:
        assert single.finite(point), point
        if point != "flat" or "default" not in name:
            expected = measured.grads[point]
            size = np.abs(expected).max()
            np.testing.assert_allclose(single.grads[point], expected, atol=5e-3 * size)


@pytest.mark.parametrize("tx", [inner.adam(LR), inner.rmsprop(LR)], ids=["adam", "rmsprop"])
def test_the_slope_at_zero_gradients_is_right_with_the_default_eps(tx):
    """In float32, where gradients of 1e-15 are as exact as any."""
    found = slopes(tx)
    assert is_finite(found, "flat")
    assert not is_off(found, "flat")
    assert np.abs(found.by_grads).max() > 100


@pytest.mark.parametrize("b2", [0.999, 0.9, 0.5])
def test_radam_takes_the_steps_of_optax(b2):
    """Before and after it turns to Adam, and if it never does, because b2 is small."""
    options = {"b1": 0.8, "b2": b2, "eps_root": 1e-8}
    own, other = inner.radam(0.1, **options), optax.radam(0.1, **options)
    params = points()["generic"].params
    states = own.init(params), other.init(params)
    for step in range(12):
        grads = jax.tree.map(lambda leaf, step=step: np.sin(step + leaf), params)
        updates, expected = own.update(grads, states[0]), other.update(grads, states[1])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), updates[0], expected[0]
        )
        states = updates[1], expected[1]


@pytest.mark.parametrize("bound", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e6])
def test_clipping_is_that_of_optax(bound, size):
    grads = jax.tree.map(lambda leaf: jnp.float32(size * leaf), points()["generic"].params)
    own = inner.clip_by_global_norm(bound).update(grads, optax.EmptyState())[0]
    expected = optax.clip_by_global_norm(bound).update(grads, optax.EmptyState())[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), own, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(own)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: inner.adam(0.1, eps_root=0.0), "eps_root=0.0"),
        (lambda: inner.radam(0.1, eps_root=-1.0), "eps_root=-1.0"),
        (lambda: inner.rmsprop(0.1, eps=0.0), "eps=0.0"),
        (lambda: inner.clip_by_global_norm(0.0), "max_norm=0.0"),
    ],
)
def test_what_would_not_be_safe_is_refused(make, name):
    with pytest.raises(InputError, match=name):
        make()


def test_numbers_may_be_traced():
    """A learning rate, a bound or an eps_root may be meta-learned."""

    def moved(numbers):
        tx = optax.chain(
            inner.clip_by_global_norm(numbers[0]), inner.adam(numbers[1], eps_root=numbers[2])
        )
        loss = lambda p, key: (jnp.sum(p**2), {})  # noqa: E731
        return jnp.sum(inner.descend(loss, jnp.ones(3), tx, steps=2)[0])

    assert np.isfinite(jax.jit(jax.grad(moved))(jnp.array([0.5, 0.1, 1e-3]))).all()


def test_long_gradients_of_16_bits_are_clipped_and_not_lost():
    tx = inner.clip_by_global_norm(1.0)
    updates, _ = tx.update(jnp.array([300, 400], jnp.float16), optax.EmptyState())
    np.testing.assert_allclose(updates, [0.6, 0.8], rtol=1e-3)
    assert updates.dtype == jnp.float16
