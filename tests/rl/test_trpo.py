"""The trust region against the explicit Hessian, a closed form, and its two promises."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl.models.mlp import mlp
from jaxdl.rl.gaussian import Gaussian, gaussian_policy, kl_divergence
from jaxdl.rl.trpo import trust_region


def bandit(mean, log_std, **options):
    """One state, one action of every kind; the loss is linear in mean and log deviation."""
    params = {"mean": jnp.asarray(mean), "log_std": jnp.asarray(log_std)}
    slope = {"mean": jnp.array([3.0, -1.0]), "log_std": jnp.array([0.5, 2.0])}

    def surrogate(old, new):
        return jnp.vdot(new.mean, slope["mean"]) + jnp.vdot(new.log_std, slope["log_std"])

    predict = lambda p: Gaussian(p["mean"], p["log_std"])  # noqa: E731
    step = jax.jit(partial(trust_region, predict, surrogate, kl_divergence, **options))
    return params, slope, step(params)


def test_natural_gradient_of_a_gaussian_in_closed_form():
    """The Fisher matrix is diagonal: 1 / std^2 for means, 2 for logarithms of deviations."""
    log_std = np.array([0.3, -1.0], np.float32)
    params, slope, (moved, metrics) = bandit(np.zeros(2, np.float32), log_std, max_kl=1e-4)
    natural = {"mean": np.exp(2 * log_std) * slope["mean"], "log_std": slope["log_std"] / 2}
    bent = sum(np.vdot(natural[name], slope[name]) for name in slope)
    length = np.sqrt(2 * 1e-4 / bent)
    for name in slope:
        step = -metrics["taken"] * length * natural[name]
        np.testing.assert_allclose(moved[name] - params[name], step, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(metrics["kl"], 1e-4 * metrics["taken"] ** 2, rtol=0.05)
    assert metrics["taken"] >= 0.8


def nonlinear():
    """A policy of a small net, random states, actions and advantages, in float64."""
    policy = gaussian_policy(mlp((5, 2), activation=jnp.tanh), actions=2)
    rng = np.random.default_rng(0)
    obs, action = jnp.asarray(rng.normal(size=(2, 40, 2)))
    advantage = jnp.asarray(rng.normal(size=40))
    params = jax.tree.map(jnp.float64, jax.jit(policy.init)(jax.random.key(0), obs))
    params["log_std"] = jnp.array([-0.3, 0.2])

    def surrogate(old, new):
        return -jnp.mean(jnp.exp(new.log_prob(action) - old.log_prob(action)) * advantage)

    def divergence(old, new):
        return jnp.mean(kl_divergence(old, new))

    return params, lambda p: policy.apply(p, obs), surrogate, divergence


def test_the_direction_solves_the_explicit_hessian_of_the_divergence():
    """That of KL(old, predict(params)) by all parameters, without the shortcut by the outputs."""
    with jax.enable_x64(True):
        params, predict, surrogate, divergence = nonlinear()
        flat, unravel = ravel_pytree(params)

        @jax.jit
        def both(flat):
            old = predict(params)
            by_flat = lambda compare: lambda p: compare(old, predict(unravel(p)))  # noqa: E731
            moved, metrics = trust_region(
                predict, surrogate, divergence, params, damping=1e-3, cg_steps=200
            )
            hessian, gradient = jax.hessian(by_flat(divergence)), jax.grad(by_flat(surrogate))
            step = ravel_pytree(moved)[0] - flat
            return hessian(flat), gradient(flat), step, metrics["taken"]

        hessian, gradient, step, taken = map(np.asarray, both(flat))
    damped = hessian + 1e-3 * np.eye(len(step))
    direction = np.linalg.solve(damped, gradient)
    length = np.sqrt(2 * 0.01 / (direction @ damped @ direction))
    np.testing.assert_allclose(step, -taken * length * direction, rtol=1e-5, atol=1e-9)
    assert np.abs(step).max() > 1e-3


def test_the_line_search_keeps_both_promises():
    with jax.enable_x64(True):
        params, predict, surrogate, divergence = nonlinear()

        @jax.jit
        def run(max_kl):
            moved, metrics = trust_region(predict, surrogate, divergence, params, max_kl=max_kl)
            old, new = predict(params), predict(moved)
            gain = surrogate(old, old) - surrogate(old, new)
            return metrics, divergence(old, new), gain

        found = {max_kl: jax.tree.map(float, run(max_kl)) for max_kl in (1e-3, 0.1, 3.0)}
    for max_kl, (metrics, kl, gain) in found.items():
        np.testing.assert_allclose([metrics["kl"], metrics["improvement"]], [kl, gain], rtol=1e-6)
        assert 0 < kl <= max_kl
        assert gain > 0
        power = np.log(metrics["taken"]) / np.log(0.8)
        np.testing.assert_allclose(power, np.round(power), atol=1e-6)
    assert found[3.0][0]["taken"] < 1  # where the quadratic model is not believed


def test_where_nothing_is_better_nothing_changes():
    """A loss whose gradient lies: every point of the search is worse, or not a number."""
    params = {"mean": jnp.ones(2), "log_std": jnp.zeros(2)}
    predict = lambda p: Gaussian(p["mean"], p["log_std"])  # noqa: E731

    @jax.custom_jvp
    def lies(x):
        return jnp.sum(jnp.square(x - 1))

    lies.defjvp(lambda primals, tangents: (lies(*primals), jnp.sum(tangents[0])))
    for surrogate in (
        lambda old, new: lies(new.mean),
        lambda old, new: jnp.sum(new.mean) + jnp.where(new.mean[0] < 1, jnp.nan, 0),
        lambda old, new: jnp.float32(1),
    ):
        moved, metrics = jax.jit(partial(trust_region, predict, surrogate, kl_divergence))(params)
        jax.tree.map(np.testing.assert_array_equal, moved, params)
        assert not any(metrics.values())
