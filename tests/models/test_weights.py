"""Weights of examples in every net with statistics of the batch: masked equals cut.

One row per net. A net that takes statistics of the batch in a way of its own enters here.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.airnet import airnet
from jaxdl.models.conv4 import conv4_omniglot, conv4_pooled
from jaxdl.models.convnet import convnet
from jaxdl.models.layers.norm import BatchNorm, RunningBatchNorm
from jaxdl.models.linen import pure, stateful, without_stats
from jaxdl.models.mlp import mlp, mlp_omniglot
from jaxdl.models.resnet import resnet
from jaxdl.models.resnet12 import resnet12, resnet12_batch
from jaxdl.types import StatefulModel

COUNTED, PADDED, CLASSES = 6, 4, 3


class FlaxNet(nn.Module):
    """A net as Flax's own examples write them."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, use_fast_variance=False)(x))
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


class Subclass(nn.BatchNorm):
    """Flax's norm behind a call that knows no mask."""

    def __call__(self, x: Any, train: bool) -> Any:
        return super().__call__(x, use_running_average=not train)


class SubclassNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = Subclass(use_fast_variance=False)(nn.Dense(6)(x.reshape(len(x), -1)), train)
        return nn.Dense(CLASSES)(nn.relu(x))


class Nested(nn.Module):
    """A norm inside a block inside a net: nobody hands weights down."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.relu(BatchNorm("batch")(nn.Dense(7)(x)))

        return nn.Dense(CLASSES)(Block()(Block()(x.reshape(len(x), -1))))


NETS = {
    "conv4_omniglot": without_stats(conv4_omniglot(CLASSES, 4)),
    "conv4_pooled": without_stats(conv4_pooled(CLASSES, 4)),
    "mlp": without_stats(mlp((9, 8, CLASSES), norm="batch")),
    "mlp_omniglot": without_stats(mlp_omniglot(CLASSES)),
    "resnet12_batch": without_stats(resnet12_batch(CLASSES, widths=(4, 4))),
    "resnet12": resnet12(CLASSES, widths=(4, 4)),
    "resnet": resnet(CLASSES, (1, 1), stem="cifar", width=4),
    "convnet": convnet(CLASSES, (4, 4)),
    "airnet": airnet(CLASSES, widths=(4, 4)),
    "Flax": stateful(FlaxNet()),
    "Flax, subclassed": stateful(SubclassNet()),
    "nested": without_stats(pure(Nested())),
}


def images(count: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, size=(count, 16, 16, 2)), float)


LABELS = jnp.arange(COUNTED) % CLASSES


@cache
def started(model: StatefulModel) -> Any:
    params, stats = jax.jit(model.init)(jax.random.key(0), images(COUNTED))
    noise = np.random.default_rng(1)
    # Zero biases and unit scales would hide a channel that is mixed up.
    return jax.tree.map(
        lambda a: a + 0.1 * noise.normal(size=a.shape).astype(a.dtype), params
    ), stats


def trained(model: StatefulModel, params: Any, stats: Any, x: Any, y: Any, weight: Any) -> Any:
    """Logits, new statistics, and the gradients of the loss in parameters and images."""

    def loss(params: Any, x: Any) -> Any:
        logits, new = model.apply(params, stats, x, weight=weight, mode="train")
        return cross_entropy(logits, y, weight)[0], (logits, new)

    grads, (logits, new) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    return logits[:COUNTED], new, grads[0], grads[1][:COUNTED]


@pytest.mark.parametrize("name", NETS)
def test_masked_equals_cut(name: str) -> None:
    model = NETS[name]
    params, stats = started(model)
    x = images(COUNTED)
    padded = jnp.concatenate([x, 50 * images(PADDED, seed=2)])
    labels = jnp.concatenate([LABELS, jnp.full(PADDED, -100)])
    weight = jnp.concatenate([jnp.ones(COUNTED), jnp.zeros(PADDED)])
    run = jax.jit(lambda *args: trained(model, params, stats, *args))
    cut, masked = run(x, LABELS, None), run(padded, labels, weight)
    for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(b).max())), rtol=0)
    # And padding does reach a net that is not told of it.
    told_nothing = run(padded, labels, jnp.ones_like(weight))[0]
    assert np.abs(told_nothing - cut[0]).max() > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_weights_do_not_matter_in_eval_unless_statistics_are_those_of_the_batch(name: str) -> None:
    model = NETS[name]
    params, stats = started(model)
    run = jax.jit(lambda w: model.apply(params, stats, images(COUNTED), weight=w, mode="eval")[0])
    plain, weighted = run(jnp.ones(COUNTED)), run(jnp.arange(COUNTED) % 2.0)
    assert np.array_equal(plain, weighted) == bool(jax.tree.leaves(stats))


@pytest.mark.parametrize("norm", [BatchNorm("batch"), RunningBatchNorm()])
def test_a_weight_of_two_is_two_examples(norm: Any) -> None:
    model = stateful(norm) if isinstance(norm, RunningBatchNorm) else without_stats(pure(norm))
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)))
        params, stats = model.init(jax.random.key(0), x)
        twice = jnp.concatenate([x, x[1:2]])
        weight = jnp.array([1, 2, 1, 1])
        y, new = model.apply(params, stats, x, weight=weight, mode="train")
        expected, wanted = model.apply(params, stats, twice, mode="train")
        np.testing.assert_allclose(y, expected[:4], rtol=1e-12)
        for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_batch_of_padding_leaves_the_averages_as_they_are() -> None:
    model = stateful(RunningBatchNorm())
    params, stats = model.init(jax.random.key(0), images(2))
    y, new = model.apply(params, stats, images(2), weight=jnp.zeros(2), mode="train")
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, new, stats)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_weigh_as_one(devices: int) -> None:
    """Padding on one device alone; values, averages and gradients of the whole batch."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 2)))
        weight = jnp.array([1, 1, 0.5, 1, 2, 0, 0, 0])
        whole, split = stateful(RunningBatchNorm()), stateful(RunningBatchNorm(axis_name="d"))
        params, stats = whole.init(jax.random.key(0), x)

        def loss(model: Any, x: Any, weight: Any) -> Any:
            y, new = model.apply(params, stats, x, weight=weight, mode="train")
            return jnp.sum(jnp.sin(y)), (y, new)

        expected = jax.grad(lambda *a: loss(whole, *a), has_aux=True)(x, weight)
        parts = [a.reshape(devices, -1, *a.shape[1:]) for a in (x, weight)]
        each = jax.vmap(jax.grad(lambda *a: loss(split, *a), has_aux=True), axis_name="d")
        grads, (y, new) = each(*parts)
        np.testing.assert_allclose(y.reshape(x.shape), expected[1][0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(grads.reshape(x.shape), expected[0], rtol=1e-9, atol=1e-10)
        for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(expected[1][1]), strict=True):
            np.testing.assert_allclose(a, jnp.broadcast_to(b, a.shape), rtol=1e-10)


def test_a_gradient_flows_through_the_weights() -> None:
    """Learned weights of examples: reverse mode against differences, in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
        params, direction = jnp.linspace(0.3, 1.7, 5), jnp.array([1.0, -2, 0.5, 3, -1])

        def loss(weight: Any) -> Any:
            return jnp.sum(jnp.sin(pure(BatchNorm("batch")).apply(scale, x, weight=weight)) * x)

        scale = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
        step = 1e-6
        ends = [loss(params + sign * step * direction) for sign in (1, -1)]
        found = jnp.vdot(jax.grad(loss)(params), direction)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


def test_a_net_that_moves_its_batch_axis_is_refused() -> None:
    class Moved(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return BatchNorm("batch")(x.reshape(-1, x.shape[-1]))

    class FlaxMoved(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            return nn.BatchNorm(use_running_average=not train)(x.reshape(-1, x.shape[-1]))

    x, weight = jnp.ones((4, 5, 3)), jnp.ones(4)
    for model in (without_stats(pure(Moved())), stateful(FlaxMoved())):
        params, stats = model.init(jax.random.key(0), x)
        with pytest.raises(InputError, match=r"weights \[4\] beside an input \[20, 3\]"):
            model.apply(params, stats, x, weight=weight, mode="train")


def test_a_net_with_weights_of_its_own_gets_them() -> None:
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x: Any, weight: Any = None) -> Any:
            z = BatchNorm("batch", False, False)(x, jnp.ones(len(x)))  # as the net wants it
            return z, weight

    model, x, weight = pure(Own()), images(3), jnp.array([1.0, 0, 2])
    z, found = model.apply({}, x, weight=weight)
    np.testing.assert_array_equal(found, weight)
    np.testing.assert_allclose(z, model.apply({}, x)[0], atol=1e-6)
    assert model.apply({}, x)[1] is None


def test_a_single_example_is_refused_where_it_would_be_normalised_by_itself() -> None:
    """In a layer without positions each would become the same numbers, whatever it shows."""
    model = conv4_omniglot(5, 8)
    params = model.init(jax.random.key(0), jnp.ones((1, 16, 16, 1)))
    with pytest.raises(InputError, match=r"single example.*--norm support.*norm='example'"):
        model.apply(params, jnp.ones((1, 16, 16, 1)))
    assert mlp((4, 2)).apply(
        mlp((4, 2)).init(jax.random.key(0), jnp.ones((1, 3))), jnp.ones((1, 3))
    ).shape == (1, 2)
