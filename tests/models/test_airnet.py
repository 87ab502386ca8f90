"""The fast net against its formulas in NumPy and lax, one device against two."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.scipy.special import erf

from jaxdl import parallel
from jaxdl.data.epochs import epochs
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.airnet import airnet, partial_dirac, whitening_kernel, with_views
from jaxdl.models.layers.conv import conv
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, supervised_step
from jaxdl.train.streams import run_keys

RNG = np.random.default_rng(0)
# Neighbours and channels are correlated, as in photographs.
_NOISE = RNG.normal(size=(32, 14, 15, 3)).astype(np.float32)
IMAGES = jnp.asarray(_NOISE[:, 1:] + _NOISE[:, :-1] + _NOISE[:, 1:, :, ::-1])
LABELS = RNG.integers(0, 5, 32)
tiny = partial(airnet, 5, widths=(6,))


def test_whitened_patches_are_uncorrelated():
    epsilon = 0.01
    kernel = whitening_kernel(IMAGES, epsilon=epsilon)
    assert kernel.shape == (2, 2, 3, 24)
    out = np.asarray(conv(IMAGES, kernel, padding="VALID"), np.float64).reshape(-1, 24)
    np.testing.assert_array_equal(out[:, 12:], -out[:, :12])
    covariance = out[:, :12].T @ out[:, :12] / len(out)
    patches = np.stack(
        [
            np.asarray(IMAGES, np.float64)[n, i : i + 2, j : j + 2].ravel()
            for n in range(32)
            for i in range(12)
            for j in range(14)
        ]
    )
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    assert values[0] > 5 * values[-1]  # or there was nothing to whiten
    np.testing.assert_allclose(covariance, np.diag(values / (values + epsilon)), atol=2e-4)


@pytest.mark.parametrize(("channels", "features"), [(3, 7), (4, 4), (5, 2)])
def test_the_first_filters_pass_their_channels_on(channels, features, key):
    x = jnp.asarray(RNG.normal(size=(2, 5, 6, channels)), jnp.float32)
    kernel = partial_dirac(key, (3, 3, channels, features))
    same = min(channels, features)
    np.testing.assert_allclose(conv(x, kernel)[..., :same], x[..., :same], atol=1e-6)
    rest = np.asarray(kernel[..., same:])
    if rest.size:
        bound = (9 * channels) ** -0.5
        assert np.abs(rest).max() <= bound
        assert np.abs(rest).max() > 0.8 * bound


def test_eval_is_the_formula():
    model = tiny(widths=(6, 8), logit_scale=0.25)
    params, stats = jax.jit(model.init)(jax.random.key(0), IMAGES)
    # Every parameter and statistic its own value, as after training.
    leaves, tree = jax.tree.flatten((params, stats))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    changed = [
        leaf + 0.1 * jax.random.uniform(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    params, stats = jax.tree.unflatten(tree, changed)

    def convolve(x, kernel, padding):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def layer(name, x, pool):
        x = convolve(x, params[f"{name}_conv"]["kernel"], "SAME")
        if pool:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        norm, found = params[f"{name}_norm"], stats[f"{name}_norm"]
        x = (x - found["mean"].reshape(1, 1, 1, -1)) / jnp.sqrt(found["var"]).reshape(1, 1, 1, -1)
        return gelu(x + norm["bias"].reshape(1, 1, 1, -1))

    @jax.jit
    def both(x):
        y = gelu(
            convolve(x, stats["whitening"], "VALID") + params["whitening_bias"].reshape(1, 1, 1, -1)
        )
        for block in (1, 2):
            y = layer(f"block{block}_1", y, pool=True)
            y = layer(f"block{block}_2", y, pool=False)
        expected = 0.25 * y.max(axis=(1, 2)) @ params["head"]["kernel"]
        return expected, model.apply(params, stats, x, mode="eval")[0]

    expected, found = both(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_full_net_has_2_million_parameters_as_published():
    params, stats = jax.eval_shape(airnet(10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    widths = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
    expected = 24 + sum(9 * a * b + b for a, b in widths) + 256 * 10
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected == 1_971_352
    assert stats["whitening"].shape == (2, 2, 3, 24)


def test_bfloat16_computes_so_and_keeps_float32():
    exact, half = tiny(), tiny(dtype=jnp.bfloat16)

    @jax.jit
    def both(x):
        params, stats = half.init(jax.random.key(0), x)
        expected, _ = exact.apply(params, stats, x, mode="train")
        return params, *half.apply(params, stats, x, mode="train"), expected

    params, y, new, expected = both(IMAGES)
    assert y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((params, new))} == {np.dtype("float32")}
    assert 0 < np.abs(y - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_two_devices_equal_one():
    tx = optax.sgd(0.1, momentum=0.9)
    stream = epochs(IMAGES, LABELS, batch=16, transform=lambda key, x: x)
    keys = run_keys(0, 1)

    def trained(devices):
        axis = parallel.axis_name(devices)
        model = tiny(axis_name=axis)
        step = supervised_step(model, cross_entropy, tx, axis_name=axis)
        state = init_states(lambda key: tiny().init(key, IMAGES), keys, tx, with_stats=True)
        *_, (_, state, _) = loop(step, stream, keys, state, steps=4, devices=devices)
        return parallel.local((state.params, state.stats))

    one, two = trained(1), trained(2)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(one[1]["whitening"][0], whitening_kernel(IMAGES), atol=1e-3)


@pytest.mark.slow
def test_six_views_are_averaged_in_eval_alone(key):
    model = tiny()
    params, stats = jax.jit(model.init)(key, IMAGES)
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")

    @jax.jit
    def both(x):
        def judge(each):
            return model.apply(params, stats, each, mode="eval")[0]

        expected = 0
        for weight, row, column in ((0.5, 1, 1), (0.25, 0, 0), (0.25, 2, 2)):
            view = padded[:, row : row + 13, column : column + 15]
            expected += weight / 2 * (judge(view) + judge(view[:, :, ::-1]))
        return expected, with_views(model).apply(params, stats, x, mode="eval")[0], judge(x)

    expected, found, plain = both(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - plain).max() > 1e-3
    trained = [  # training sees each image once, as it is
        jax.make_jaxpr(partial(each.apply, mode="train"))(params, stats, IMAGES)
        for each in (model, with_views(model))
    ]
    assert str(trained[0]) == str(trained[1])


def test_what_cannot_be_meant_is_refused(key):
    with pytest.raises(InputError, match="at least 1"):
        airnet(0)
    with pytest.raises(InputError, match="widths"):
        airnet(10, widths=())
    with pytest.raises(InputError, match="9x9"):
        jax.eval_shape(airnet(10).init, key, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(InputError, match="floating"):
        jax.eval_shape(airnet(10).init, key, jnp.zeros((1, 32, 32, 3), jnp.uint8))
