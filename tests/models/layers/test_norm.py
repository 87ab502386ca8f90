from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.norm import BatchNorm, RunningBatchNorm, standardise
from jaxdl.models.layers.pooling import max_pool
from jaxdl.models.linen import pure, stateful


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def images(seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(3.0, 2.0, size=(4, 3, 5, 2)))


def plain(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    r = 1 / jnp.sqrt(variance + epsilon)
    return (x - mean) * r, x - mean, r


@pytest.mark.parametrize("mode", ["batch", "example"])
def test_value_is_numpys(mode: Any) -> None:
    x = np.asarray(images())
    axes = (0, 1, 2) if mode == "batch" else (1, 2)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([-1.0, 5.0])}
    y = pure(BatchNorm(mode)).apply(params, jnp.asarray(x))
    np.testing.assert_allclose(y, expected * [2, 3] + [-1, 5], rtol=1e-12)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2)])
def test_derivatives_are_those_of_the_plain_formula(axes: tuple[int, ...]) -> None:
    """First, second (both modes) and third, of all outputs, batched and not."""
    x, dx = images(), images(1)

    def derivatives(f: Any) -> Any:
        def loss(x: Any) -> Any:
            z, c, r = f(x, axes, 1e-3)
            return jnp.sum(jnp.sin(z) * x) + jnp.sum(jnp.cos(c)) + jnp.sum(jnp.exp(r))

        grad = jax.grad(loss)
        forward = jax.jvp(grad, (x,), (dx,))[1]
        reverse = jax.grad(lambda x: jnp.vdot(grad(x), dx))(x)
        third = jax.jvp(lambda x: jax.jvp(grad, (x,), (dx,))[1], (x,), (dx,))[1]
        return grad(x), forward, reverse, third, jax.vmap(grad)(jnp.stack([x, dx]))

    ours = jax.jit(lambda: derivatives(standardise))()
    for a, b in zip(ours, jax.jit(lambda: derivatives(plain))(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ours[1], ours[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["batch", "example", "weighted"])
def test_a_pool_commutes_with_the_norm(mode: Any) -> None:
    """Value and the two derivatives by both modes, against the pool after the norm."""
    x, dx = images(2)[:, :, :4], images(3)[:, :, :4]
    weight = jnp.array([1.0, 0.0, 2.0, 1.0]) if mode == "weighted" else None
    of = "example" if mode == "example" else "batch"
    bias = {"bias": jnp.array([-1.0, 5.0])}

    def pool(x: Any) -> Any:
        return max_pool(x, (3, 2))

    def derivatives(f: Any) -> Any:
        def loss(x: Any) -> Any:
            return jnp.sum(jnp.sin(f(x)))

        grad = jax.grad(loss)
        forward = jax.jvp(grad, (x,), (dx,))[1]
        return f(x), grad(x), forward, jax.grad(lambda x: jnp.vdot(grad(x), dx))(x)

    first = pure(BatchNorm(of, use_scale=False, pool=pool))
    then = pure(BatchNorm(of, use_scale=False))
    ours = jax.jit(lambda: derivatives(lambda x: first.apply(bias, x, weight=weight)))()
    theirs = jax.jit(lambda: derivatives(lambda x: pool(then.apply(bias, x, weight=weight))))()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ours[2], ours[3], rtol=1e-9, atol=1e-10)
    with pytest.raises(InputError, match="use_scale=False"):
        pure(BatchNorm(of, pool=pool)).init(jax.random.key(0), x)


def test_example_mode_sees_one_example_and_batch_mode_all() -> None:
    x = images()
    other = x.at[1:].add(jnp.arange(5.0).reshape(1, 1, 5, 1))
    for mode, equal in (("example", True), ("batch", False)):
        apply = pure(BatchNorm(mode, use_scale=False, use_bias=False)).apply  # type: ignore[arg-type]
        assert bool(jnp.allclose(apply({}, x)[0], apply({}, other)[0])) is equal


def test_parameters_on_request_named_as_flax_names_them() -> None:
    x = images()
    key = jax.random.key(0)
    flax = nn.BatchNorm(use_running_average=False).init(key, x)["params"]
    ours = pure(BatchNorm("batch")).init(key, x)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), ours) == jax.tree.map(
        lambda a: (a.shape, a.dtype), flax
    )
    assert set(pure(BatchNorm("batch", use_scale=False)).init(key, x)) == {"bias"}
    assert pure(BatchNorm("batch", use_scale=False, use_bias=False)).init(key, x) == {}


def test_bfloat16_uses_float32_statistics() -> None:
    x = (images() + 100).astype(jnp.bfloat16)
    params = pure(BatchNorm("batch")).init(jax.random.key(0), x)
    y = pure(BatchNorm("batch")).apply(params, x)
    assert y.dtype == jnp.bfloat16
    exact = pure(BatchNorm("batch")).apply(params, x.astype(float))
    np.testing.assert_allclose(y.astype(float), exact, rtol=1e-2, atol=1e-2)


def test_large_offset_does_not_cancel() -> None:
    """E[x^2] - E[x]^2 would lose the variance in float32 here."""
    x = (images() + 3000).astype(jnp.float32)
    z, _, _ = standardise(x, (0, 1, 2), 1e-3)
    exact, _, _ = plain(x.astype(float), (0, 1, 2), 1e-3)
    np.testing.assert_allclose(z, exact, atol=2e-3)


def test_wrong_mode_and_no_positions() -> None:
    with pytest.raises(InputError, match="'batch' or 'example'"):
        pure(BatchNorm("running")).init(jax.random.key(0), images())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one position"):
        pure(BatchNorm("example")).init(jax.random.key(0), jnp.ones((4, 1, 1, 3)))
    with pytest.raises(InputError, match="one position"):
        pure(BatchNorm("example")).init(jax.random.key(0), jnp.ones((4, 3)))


def running(**options: Any) -> tuple[Any, Any, Any]:
    """A net of one running norm, with parameters and statistics that show every mistake."""
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([-1.0, 5.0])}
    stats = {"mean": jnp.array([1.0, -2.0]), "var": jnp.array([0.5, 4.0])}
    return stateful(RunningBatchNorm(**options)), params, stats


def test_running_norm_is_numpys_in_both_modes() -> None:
    model, params, stats = running(momentum=0.7, epsilon=0.01)
    x = np.asarray(images())
    y, after = model.apply(params, stats, jnp.asarray(x), mode="train")
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(
        y, (x - mean) / np.sqrt(var + 0.01) * [2, 3] + [-1, 5], rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(after["mean"], 0.7 * np.array([1, -2]) + 0.3 * mean, rtol=1e-12)
    # What is kept for later estimates the population, so it is the unbiased variance.
    unbiased = x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(after["var"], 0.7 * np.array([0.5, 4]) + 0.3 * unbiased, rtol=1e-12)
    y, same = model.apply(params, stats, jnp.asarray(x), mode="eval")
    assert same is stats
    expected = (x - [1, -2]) / np.sqrt(np.array([0.5, 4]) + 0.01) * [2, 3] + [-1, 5]
    np.testing.assert_allclose(y, expected, rtol=1e-10)


def test_running_norm_sees_each_example_alone_in_eval() -> None:
    model, params, stats = running()
    x = images()
    y, _ = model.apply(params, stats, x, mode="eval")
    alone, _ = model.apply(params, stats, x[:1], mode="eval")
    np.testing.assert_array_equal(y[:1], alone)


@pytest.mark.parametrize("devices", [2, 4])
def test_running_norm_over_an_axis_is_that_of_the_whole_batch(devices: int) -> None:
    """Value, averages and gradient; the parts differ in mean, which separate variances miss."""
    x = jnp.concatenate([images() + i for i in range(4)])
    parts = x.reshape(devices, -1, *x.shape[1:])
    whole, params, stats = running()
    split, *_ = running(axis_name="devices")

    def loss(params: Any, model: Any, x: Any) -> Any:
        y, after = model.apply(params, stats, x, mode="train")
        return jnp.mean(jnp.sin(y) * jnp.cos(x)), (y, after)

    def on_device(x: Any) -> Any:
        (_, aux), grads = jax.value_and_grad(loss, (0, 2), has_aux=True)(params, split, x)
        return jax.lax.pmean(grads[0], "devices"), grads[1], aux

    grads, by_x, (y, after) = jax.vmap(on_device, axis_name="devices")(parts)
    (_, (expected, expected_after)), (expected_grads, expected_by_x) = jax.value_and_grad(
        loss, (0, 2), has_aux=True
    )(params, whole, x)
    np.testing.assert_allclose(y.reshape(x.shape), expected, rtol=1e-9, atol=1e-11)
    # Each device's loss is a mean over its part, so the whole batch's is one part of them.
    np.testing.assert_allclose(
        by_x.reshape(x.shape) / devices, expected_by_x, rtol=1e-9, atol=1e-12
    )
    for found, wanted in ((grads, expected_grads), (after, expected_after)):
        for name, value in wanted.items():
            for each in found[name]:
                np.testing.assert_allclose(each, value, rtol=1e-10)


def test_running_norm_keeps_float32_statistics_of_bfloat16() -> None:
    model, _, _ = running()
    x = (images() + 100).astype(jnp.bfloat16)
    params, stats = model.init(jax.random.key(0), x)
    y, after = model.apply(params, stats, x, mode="train")
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((params, after))} == {jnp.dtype(jnp.float32)}
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(after["mean"], 0.1 * exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(after["var"], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_running_norm_of_one_value_does_not_divide_by_zero() -> None:
    model, params, stats = running()
    _, after = model.apply(params, stats, jnp.ones((1, 2)), mode="train")
    assert np.isfinite(after["var"]).all()


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.25, 0.01])
def test_weights_that_are_shares_leave_the_variance_of_the_sample(weight):
    """Of 1, 3, 1 and 3 it is 4/3, whatever all of them weigh."""
    norm, x = RunningBatchNorm(momentum=0.0), jnp.array([[1.0], [3.0], [1.0], [3.0]])
    variables = norm.init(jax.random.key(0), x, "train")
    _, new = norm.apply(variables, x, "train", jnp.full(4, weight), mutable=["batch_stats"])
    np.testing.assert_allclose(new["batch_stats"]["var"], 4 / 3, rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 2, rtol=1e-5)


@pytest.mark.parametrize("norm", [BatchNorm("batch"), RunningBatchNorm()])
def test_integers_are_normalised_as_floats(norm):
    modes = ["train"] if isinstance(norm, RunningBatchNorm) else []
    x = jnp.array([[0], [100], [200]], jnp.uint8)
    variables = norm.init(jax.random.key(0), x, *modes)
    found, expected = (
        norm.apply(variables, each, *modes, mutable=True)[0] for each in (x, x.astype("float32"))
    )
    np.testing.assert_array_equal(found, expected)


def test_averages_stay_float32_among_doubles():
    norm = RunningBatchNorm()
    with jax.enable_x64(True):
        x = jnp.arange(6.0).reshape(3, 2)
        variables = norm.init(jax.random.key(0), x, "train")
        for weight in (None, jnp.ones(3)):
            _, new = norm.apply(variables, x, "train", weight, mutable=["batch_stats"])
            assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("float32")}
