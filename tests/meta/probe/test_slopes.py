"""The probe: against closed forms, whatever surrounds it, and at what price."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.meta.probe import cases, slopes
from jaxdl.meta.probe.cases import CASES
from jaxdl.meta.rates import scale_by_rates


def test_of_gradient_descent_it_finds_the_learning_rate():
    """The sum of all updates, weighted: its derivative by each gradient is -lr times the weight."""
    _, line, weights = cases.rows()
    found = slopes.slopes(optax.sgd(0.1))
    expected = np.tile(-0.1 * weights.ravel(), (3, 1))
    for case in ("generic", "small", "dead", "flat", "unbiased"):
        at = CASES.index(case)
        np.testing.assert_allclose(found.by_grads[at].reshape(3, 6), expected, rtol=1e-6)
        np.testing.assert_allclose(found.along[at], np.sum(-0.1 * weights * line.grads), rtol=1e-6)
    first = found.by_grads[CASES.index("first")].reshape(3, 6)
    np.testing.assert_allclose(first, expected * [[1], [0], [0]], rtol=1e-6)
    np.testing.assert_array_equal(found.by_params, 0)


def test_of_weight_decay_it_finds_the_derivative_by_parameters():
    """Each step multiplies a parameter by 0.9: the sum of its updates is (0.9**3 - 1) times it."""
    _, _, weights = cases.rows()
    found = slopes.slopes(optax.chain(optax.add_decayed_weights(0.1), optax.scale(-1.0)))
    np.testing.assert_allclose(found.by_params[0], (0.9**3 - 1) * weights.ravel(), rtol=1e-5)


def test_with_gradients_as_constants_it_takes_no_derivative_by_them():
    found = slopes.slopes(optax.adam(0.1), first_order=True)
    np.testing.assert_array_equal(found.by_grads, 0)


def test_it_computes_numbers_inside_every_transformation_and_setting():
    plain = slopes.slopes(optax.adam(0.1))

    def inside(x):
        found = slopes.slopes(optax.adam(0.1))  # a new one, which is not known yet
        jax.tree.map(np.testing.assert_array_equal, found, plain)
        return x

    jax.jit(inside)(1.0)
    jax.vmap(inside)(jnp.ones(2))
    jax.grad(inside)(1.0)
    jax.eval_shape(inside, 1.0)
    with jax.debug_nans(True), jax.enable_x64(True), jax.transfer_guard("disallow"):
        inside(None)
    with jax.checking_leaks():
        jax.jit(inside)(1.0)


def test_what_holds_traced_numbers_is_not_asked():
    def inside(rate):
        assert slopes.slopes(optax.sgd(rate)) is None
        assert slopes.slopes(optax.inject_hyperparams(optax.adam)(rate)) is None
        return rate

    with jax.checking_leaks():
        jax.jit(inside)(0.1)
        jax.grad(inside)(0.1)
    jax.vmap(inside)(jnp.ones(2))


def test_a_number_may_be_an_array():
    expected = slopes.slopes(optax.adam(0.25)).by_grads
    found = slopes.slopes(optax.adam(jnp.float32(0.25))).by_grads
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_made_for_layers_of_certain_names_is_not_asked():
    tx = optax.partition({"head": optax.sgd(0.1)}, {"head": "head"})
    assert slopes.slopes(tx) is None


@pytest.mark.parametrize("tx", [scale_by_rates(), optax.polyak_sgd()], ids=["rates", "value"])
def test_extra_arguments_are_given_to_who_asks(tx):
    assert np.abs(slopes.slopes(tx).by_grads[0]).max() > 0


def test_a_loop_that_reverse_mode_cannot_follow_is_told():
    with pytest.raises(slopes.NotReversibleError, match="Reverse-mode differentiation"):
        slopes.slopes(optax.lbfgs())


def test_it_is_cheap_and_asked_once():
    slopes.slopes(optax.sgd(0.2))  # what JAX does once per process
    tx = optax.sgd(0.3, momentum=0.9)
    began = time.perf_counter()
    found = slopes.slopes(tx)
    took = time.perf_counter() - began
    assert slopes.slopes(tx) is found
    assert took < 3, "0.2 s on an idle core"


def test_what_cannot_be_hashed_is_asked_too():
    class Update:
        __hash__ = None

        def __call__(self, updates, state, params=None):
            return updates, state

    tx = optax.GradientTransformation(lambda params: (), Update())
    assert slopes.slopes(tx) is not None
