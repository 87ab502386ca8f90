"""Inner steps in segments: the gradient of plain nested `jax.grad`, in memory that grows slowly."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl.errors import InputError
from jaxdl.meta import memory
from jaxdl.meta.estimators import exact, mixed_mode, rematerialised
from jaxdl.meta.inner import descend, scale_by_rates
from jaxdl.meta.memory import Segmented, auto, plan, segmented
from jaxdl.meta.segments import Cost, cost, in_segments, segment_length


def curved(params, key, data, target):
    """With noise per step, data that carry a gradient, and a target per step."""
    data = data + 0.1 * jax.random.normal(key, data.shape, data.dtype)
    hidden = jnp.tanh(data @ params["w"])
    value = jnp.mean((hidden @ params["v"] - target) ** 2) + 0.1 * jnp.sum(params["v"] ** 4)
    return value, {"loss": value}


def problem(steps):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "v": jnp.asarray(rng.normal(size=4))}
    rates, targets = jnp.linspace(0.1, 0.2, steps), jnp.asarray(rng.normal(size=steps))
    return params, jnp.asarray(rng.normal(size=(5, 3))), rates, targets


MIXED = pytest.param(
    mixed_mode,
    3,
    marks=pytest.mark.skipif(
        getattr(jax.config, "jax_custom_vjp3", False),
        reason="under this flag safe_zip raises inside jax 0.10.2",
    ),
)


@pytest.mark.skipif(
    getattr(jax.config, "jax_remat3", False),
    reason="jax refuses it under this flag (findings/jax-flags-of-checkpoint-and-scan.sh)",
)
@pytest.mark.parametrize(
    ("estimator", "length"),
    [(exact, 1), (exact, 3), MIXED, (rematerialised, 4), (exact, None), (exact, 9)],
)
def test_segments_give_the_meta_gradient_of_nested_grad(estimator, length, key):
    """By parameters, data, rates and what differs from step to step; 8 steps, so 3 leaves a rest.

    The path, on which MAML++ has losses, is that of all steps in order.
    """
    with jax.enable_x64(True):
        given = problem(steps := 8)
        tx = optax.chain(optax.trace(decay=0.5), scale_by_rates())

        def outer(params, data, rates, targets, estimator):
            options = {"rates": rates, "each": (targets,), "key": key, "estimator": estimator}
            visit = lambda params, target: jnp.sum(params["v"]) * target  # noqa: E731
            adapted, path = descend(curved, params, tx, data, steps=steps, visit=visit, **options)
            weights = jnp.arange(1, steps + 1)
            value = curved(adapted, key, 2 * data, targets[0])[0] + path[1] @ weights
            return value, path

        grad = jax.jit(
            jax.grad(outer, argnums=(0, 1, 2, 3), has_aux=True), static_argnames="estimator"
        )
        expected = grad(*given, exact)
        found = grad(*given, segmented(estimator, length))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_segments_have_a_derivative_in_forward_mode():
    def end(w, estimator):
        loss = lambda w, key: (jnp.sum(jnp.sin(w)), {})  # noqa: E731
        return descend(loss, w, optax.sgd(0.1), steps=7, estimator=estimator)[0]

    found, expected = (
        jax.jvp(lambda w, e=e: end(w, e), (jnp.ones(3),), (jnp.arange(3.0),))[1]
        for e in (segmented(length=2), exact)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def temporary(estimator, steps):
    """Bytes of the compiled meta-gradient on a net whose activations outweigh its parameters."""
    params = {"w": jnp.ones((16, 32)), "v": jnp.ones(32)}

    def loss(params, key):
        del key
        value = jnp.mean((jnp.tanh(jnp.ones((512, 16)) @ params["w"]) @ params["v"]) ** 2)
        return value, {}

    def outer(params):
        options = {"steps": steps, "estimator": estimator}
        return loss(descend(loss, params, optax.sgd(0.1), **options)[0], None)[0]

    compiled = jax.jit(jax.grad(outer)).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_as_the_root_of_the_steps():
    """Exact: 16 times the steps, about 16 times the memory. In segments: 4 times at most."""
    at_16, at_256 = (temporary(segmented(), steps) for steps in (16, 256))
    assert at_256 < 4 * at_16
    assert temporary(exact, 256) > 8 * at_256
    assert temporary(segmented(rematerialised), 256) < at_256


def test_the_length_is_nearly_the_best():
    """Against every length, by the formula. A divisor of the steps may cost a quarter more."""
    for steps in (2, 7, 10, 50, 97, 360, 1000):
        for kept in (0, 1, 3, 30, 10_000):
            given = Cost(carried=3, kept=kept)
            found = segment_length(steps, given)
            best = min(memory.memory(steps, n, given) for n in range(1, steps + 1))
            assert 1 <= found <= steps
            assert memory.memory(steps, found, given) <= 1.25 * best


def test_the_cost_of_a_step_is_what_its_backward_pass_holds():
    """Two sines: the backward pass needs both cosines. Integers and keys are counted, too."""
    step = lambda carry, key: (  # noqa: E731
        (jnp.sin(jnp.sin(carry[0])), carry[1] + 1),
        jax.random.uniform(key),
    )
    carry, keys = (jnp.zeros(10), jnp.int32(0)), jax.random.split(jax.random.key(0), 3)
    assert cost(step, carry, keys) == Cost(carried=44, kept=80)


def test_auto_keeps_all_while_that_is_little_then_less(caplog, monkeypatch):
    """It tells what it chose."""
    loss = lambda w, key: (jnp.sum(jnp.sin(jnp.sin(w))), {})  # noqa: E731

    def chosen(steps, free):
        caplog.clear()
        monkeypatch.setattr(memory, "FREE_BYTES", free)
        with caplog.at_level(logging.INFO, "jaxdl"):
            end = lambda w: descend(loss, w, optax.sgd(0.1), steps=steps)[0].sum()  # noqa: E731
            jax.make_jaxpr(jax.grad(end))(jnp.zeros(1000))
        return [record.getMessage() for record in caplog.records]

    assert chosen(8, free=0) == []
    (said,) = chosen(100, free=2**40)
    assert said.startswith("a meta-gradient through 100 inner steps: exact, which keeps 2 MiB")
    (said,) = chosen(100, free=1_000_000)
    assert "100 inner steps: rematerialised, because exact would keep 2 MiB per task" in said
    (said,) = chosen(100, free=100_000)
    assert "100 inner steps: rematerialised in segments of 10, because exact would" in said


def test_auto_is_exact_for_few_steps_to_the_last_bit():
    def slope(estimator):
        loss = lambda w, key: (jnp.sum(jnp.sin(w) ** 3), {})  # noqa: E731
        end = lambda w: descend(loss, w, optax.sgd(0.1), steps=8, estimator=estimator)[0].sum()  # noqa: E731
        return jax.jit(jax.grad(end))(jnp.arange(5.0))

    np.testing.assert_array_equal(slope(auto), slope(exact))


def test_a_segment_of_all_steps_is_a_plain_scan():
    step = lambda total, x: (total + x, None)  # noqa: E731
    for length in (5, 6):
        text = str(
            jax.make_jaxpr(lambda x, n=length: in_segments(step, 0.0, x, steps=5, length=n))(
                jnp.ones(5)
            )
        )
        assert "checkpoint" not in text
    chosen, length = plan(Segmented(exact, 7), lambda estimator: step, 0.0, jnp.ones(5), 5)
    assert (chosen, length) == (step, 5)


def test_no_steps_and_one_step_need_no_segments():
    """A test evaluates the depths 0 and 1, too."""
    loss = lambda w, key: (w**2 / 2, {})  # noqa: E731
    for estimator in (segmented(), segmented(length=3), auto):
        ends = [
            descend(loss, jnp.float32(8), optax.sgd(0.5), steps=steps, estimator=estimator)[0]
            for steps in (0, 1, 2)
        ]
        assert [float(end) for end in ends] == [8.0, 4.0, 2.0]


def test_a_length_below_1_is_refused():
    with pytest.raises(InputError, match="`length=0`: choose 1 or more steps per segment"):
        jaxdl.segmented(length=0)
