"""The inner loop: fresh gradients, any optimiser, learned rates, four ways to differentiate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.meta import estimators
from jaxdl.meta.inner import descend, scale_by_rates

EXACT = [estimators.exact, estimators.rematerialised, estimators.mixed_mode]


def curved(params, key, data, labels):
    """A loss with a Hessian that depends on the parameters, on data that carry a gradient and on
    integer labels that do not."""
    del key
    hidden = jnp.tanh(data @ params["w"])
    value = jnp.mean((hidden @ params["v"] - labels) ** 2) + 0.1 * jnp.sum(params["v"] ** 4)
    return value, {"loss": value}


def problem():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "v": jnp.asarray(rng.normal(size=4))}
    return params, jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray([0, 1, 2, 1, 0])


@pytest.mark.parametrize("estimator", EXACT[1:], ids=lambda e: e.__name__)
@pytest.mark.parametrize("steps", [1, 3])
def test_estimators_equal_nested_grad(estimator, steps):
    """Also by the data (the mixed blocks of the Hessian) and by learned rates."""
    with jax.enable_x64(True):
        params, data, labels = problem()
        tx = optax.chain(optax.trace(decay=0.5), scale_by_rates())
        rates = jnp.linspace(0.1, 0.2, steps)

        def outer(params, data, rates, estimator):
            adapted, _ = descend(
                curved, params, tx, data, labels, steps=steps, estimator=estimator, rates=rates
            )
            return curved(adapted, None, 2 * data, labels)[0]

        grad = jax.grad(outer, argnums=(0, 1, 2))
        expected = grad(params, data, rates, estimators.exact)
        found = grad(params, data, rates, estimator)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_the_meta_gradient_of_mixed_mode_has_the_derivative_of_the_exact_one():
    """In both modes: a meta-gradient may itself be part of a loss."""
    with jax.enable_x64(True):
        w, v = jnp.asarray([0.3, -0.5, 0.7]), jnp.asarray([1.0, 2.0, -1.0])

        def slope(w, estimator):
            def outer(w):
                loss = lambda w, key: (jnp.sum(jnp.sin(w)) + jnp.sum(w) ** 3, {})  # noqa: E731
                options = {"steps": 2, "estimator": estimator}
                return jnp.sum(descend(loss, w, optax.sgd(0.1), **options)[0] ** 3)

            return jax.grad(outer)(w)

        @jax.jit
        def both(w):
            mixed, exact = (
                lambda w, e=e: slope(w, e) for e in (estimators.mixed_mode, estimators.exact)
            )
            forward = [jax.jvp(each, (w,), (v,))[1] for each in (mixed, exact)]
            return forward, jax.vjp(mixed, w)[1](v)[0]

        (forward, expected), backward = both(w)
    np.testing.assert_allclose(forward, expected, rtol=1e-9)
    np.testing.assert_allclose(backward, expected, rtol=1e-9)


def test_learned_rates_have_the_gradient_of_algebra():
    """Quadratic p^2 / 2: each step multiplies p by (1 - rate), so p_k = p prod(1 - rate_i)."""
    with jax.enable_x64(True):
        loss = lambda p, key: (p**2 / 2, {})  # noqa: E731
        rates = jnp.asarray([0.1, 0.3, 0.6])

        def final(rates):
            return descend(loss, jnp.asarray(2.0), scale_by_rates(), steps=3, rates=rates)[0]

        value, grads = jax.value_and_grad(final)(rates)
    left = 1 - np.asarray(rates)
    np.testing.assert_allclose(value, 2 * left.prod(), rtol=1e-12)
    np.testing.assert_allclose(grads, -2 * left.prod() / left, rtol=1e-12)


def test_each_step_takes_a_fresh_gradient_and_its_own_key(key):
    """Newton's method on p^4: a stale gradient would end elsewhere. The keys are all distinct."""
    seen = []

    def loss(p, step_key):
        seen.append(step_key)
        noise = jax.random.uniform(step_key)
        return p**2 / 2, {"noise": noise}

    p, (metrics, visited) = descend(
        loss, jnp.float32(1.0), optax.sgd(0.5), steps=4, key=key, visit=lambda p: 10 * p
    )
    np.testing.assert_allclose(p, 0.5**4)
    np.testing.assert_allclose(visited, 10 * 0.5 ** np.arange(1, 5))
    assert len(set(np.asarray(metrics["noise"]).tolist())) == 4


def test_path_holds_the_loss_before_each_step():
    loss = lambda p, key: (p**2 / 2, {"loss": p**2 / 2})  # noqa: E731
    _, (metrics, _) = descend(loss, jnp.float32(1.0), optax.sgd(0.5), steps=3)
    np.testing.assert_allclose(metrics["loss"], 0.5 * 0.25 ** np.arange(3))


def test_the_loss_and_the_visit_get_the_slice_of_each_step():
    """Steps to 8, 4 and 6: half of the way each. Gradients flow through the slices, too."""
    loss = lambda p, key, target: ((p - target) ** 2 / 2, {})  # noqa: E731
    targets, options = jnp.asarray([8.0, 4.0, 6.0]), {"steps": 3, "visit": jnp.subtract}

    @partial(jax.jit, static_argnames="estimator")
    def end(targets, estimator):
        start, tx = jnp.float32(0), optax.sgd(0.5)
        return descend(loss, start, tx, each=(targets,), estimator=estimator, **options)

    for estimator in EXACT:
        p, (_, visited) = end(targets, estimator)
        assert (float(p), visited.tolist()) == (5.0, [-4.0, 0.0, -1.0])
        found = jax.grad(lambda each, by=estimator: end(each, by)[0])(targets)
        np.testing.assert_allclose(found, [0.125, 0.25, 0.5])
    with pytest.raises(
        InputError, match=r"each\[0\] is \[3\], and there are 2 inner steps: give it a"
    ):
        descend(loss, jnp.float32(0), optax.sgd(0.5), each=(targets,), steps=2)


def test_a_metric_may_be_a_number_of_python():
    for steps in (1, 2):
        _, (path, _) = descend(
            lambda w, key: (w**2, {"count": 3}), jnp.float32(1), optax.sgd(0.1), steps=steps
        )
        assert path["count"].tolist() == [3] * steps
    with pytest.raises(InputError, match="`each` is no tuple"):
        descend(lambda w, key: (w, {}), jnp.float32(1), optax.sgd(0.1), steps=1, each={"a": 1})


def test_no_steps_return_the_parameters_with_their_gradient():
    loss = lambda p, key: (p**2, {})  # noqa: E731
    final = lambda p: descend(loss, p, optax.sgd(0.5), steps=0)[0] * 3  # noqa: E731
    assert jax.grad(final)(jnp.float32(2.0)) == 3


def test_fewer_than_no_steps_are_refused():
    with pytest.raises(InputError, match="steps=-1: choose 0 or more inner steps"):
        descend(lambda p, key: (p**2, {}), jnp.float32(2.0), optax.sgd(0.5), steps=-1)


def test_adam_inside_has_a_finite_meta_gradient_where_a_gradient_is_zero():
    """With eps_root=0 the derivative of sqrt at zero would be infinite, and times zero NaN."""
    loss = lambda p, key: (jnp.sum(p**2), {})  # noqa: E731

    def final(p, eps_root):
        tx = optax.adam(0.1, eps_root=eps_root)
        return jnp.sum(descend(loss, p, tx, steps=2)[0])

    grad = jax.grad(final)
    assert np.isfinite(grad(jnp.asarray([1.0, 0.0]), 1e-8)).all()
    assert not np.isfinite(grad(jnp.asarray([1.0, 0.0]), 0.0)).all()


def test_first_order_drops_exactly_the_second_derivative():
    """d/dp of p - rate * p = 1 when the gradient counts as a constant, 1 - rate when not."""
    loss = lambda p, key: (p**2 / 2, {})  # noqa: E731

    def final(p, estimator):
        return descend(loss, p, optax.sgd(0.25), steps=2, estimator=estimator)[0]

    assert jax.grad(final)(jnp.float32(3.0), estimators.first_order) == 1.0
    np.testing.assert_allclose(jax.grad(final)(jnp.float32(3.0), estimators.exact), 0.75**2)


def test_mixed_mode_stores_less_than_reverse_over_reverse():
    """What mixed mode is for: less temporary memory, here with 20 steps on a wide net."""
    params = {"w": jnp.ones((64, 256)), "v": jnp.ones(256)}
    data, labels = jnp.ones((128, 64)), jnp.zeros(128, int)

    def temporary(estimator):
        def outer(params):
            adapted, _ = descend(
                curved, params, optax.sgd(0.1), data, labels, steps=20, estimator=estimator
            )
            return curved(adapted, None, data, labels)[0]

        compiled = jax.jit(jax.grad(outer)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(estimators.mixed_mode) < 0.8 * temporary(estimators.exact)


def test_a_number_of_python_may_be_the_parameter():
    found = [
        descend(lambda w, key: (w**2 / 2, {}), 1.0, optax.sgd(0.5), steps=steps)[0]
        for steps in (1, 3, 50)
    ]
    np.testing.assert_allclose(found, [0.5, 0.125, 0.5**50])
