"""The nets of the neural processes by NumPy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.process import Points, as_normal
from jaxdl.models.process_conv import process_conv
from jaxdl.models.process_paths import process_paths
from jaxdl.models.process_transformer import process_transformer

RNG = np.random.default_rng(0)
X, Y, ASKED = (RNG.uniform(-1, 1, size=(n, 1)) for n in (4, 4, 3))
WEIGHT = np.array([1.0, 2, 0, 1])
POINTS = Points(*(jnp.asarray(leaf, "float32") for leaf in (X, Y, WEIGHT)))


def found(net):
    """The answers of a net, and its parameters in float64, moved so that no bias is 0."""
    params = jax.jit(net.init)(jax.random.key(0), POINTS)
    noise = np.random.default_rng(1).normal
    params = jax.tree.map(lambda p: p + 0.3 * noise(size=p.shape).astype("float32"), params)
    run = jax.jit(lambda params, x: net.decode(params, net.encode(params, POINTS), x))
    answers = run(params, jnp.asarray(ASKED, "float32"))
    return answers, jax.tree.map(lambda leaf: np.asarray(leaf, float), params)


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def stack(params, x):
    for i in range(len(params)):
        x = dense(params[f"Dense_{i}"], np.maximum(x, 0) if i else x)
    return x


def norm(params, x):
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def attention(q, k, v):
    """Two heads, each point as often as its weight says."""
    read = []
    for head in np.split(np.arange(4), 2):
        shares = WEIGHT * np.exp(q[:, head] @ k[:, head].T / np.sqrt(2))
        read.append(shares @ v[:, head] / shares.sum(axis=1, keepdims=True))
    return np.concatenate(read, axis=1)


def block(params, rows, keys, values):
    """The attention of ANP."""
    q, k, v = (
        dense(params[name], x) for name, x in (("query", rows), ("key", keys), ("value", values))
    )
    x = norm(params["norms_0"], q + attention(q, k, v))
    return norm(params["norms_1"], x + np.maximum(dense(params["join"], x), 0))


def reader(params, heads):
    rows = stack(params["stack"], np.concatenate([X, Y], axis=1))
    return block(params["attention"], rows, rows, rows) if heads else rows


@pytest.mark.parametrize("heads", [pytest.param(0, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("latent", [pytest.param(False, marks=pytest.mark.slow), True])
def test_two_paths(heads, latent):
    """The latent one answers by its mean where no sample is given."""
    answers, params = found(process_paths(2, width=4, heads=heads, latent=latent))

    def pooled(params):
        mean = np.average(reader(params["Reader_0"], heads), axis=0, weights=WEIGHT)
        return stack(params["Stack_0"], mean[None])

    whole = pooled(params["second"])[:, :4]
    first = params["first"]
    if heads:
        places, asked = (stack(first["places"], x) for x in (X, ASKED))
        local = block(first["attention"], asked, places, reader(first["reader"], heads))
    else:
        local = np.repeat(pooled(first["pooling"]), 3, axis=0)
    rows = np.concatenate([local, np.repeat(whole, 3, axis=0), ASKED], axis=1)
    np.testing.assert_allclose(answers, stack(params["decoder"], rows), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_distribution_of_the_latent_path():
    net = process_paths(2, width=3, latent=True)
    params = net.init(jax.random.key(0), POINTS)
    whole = net.encode(params, POINTS).whole
    pooled = stack(
        jax.tree.map(np.asarray, params["second"]["Stack_0"]),
        np.average(
            stack(
                jax.tree.map(np.asarray, params["second"]["Reader_0"]["stack"]),
                np.concatenate([X, Y], axis=1),
            ),
            axis=0,
            weights=WEIGHT,
        )[None],
    )[0]
    np.testing.assert_allclose(whole.mean, pooled[:3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.scale, 0.1 + 0.9 / (1 + np.exp(-pooled[3:])), rtol=1e-5)


def test_the_transformer_with_a_mask_over_all_tokens():
    """As the paper has it: one sequence, in which the points alone are seen."""
    answers, params = found(process_transformer(2, width=4, heads=2, layers=2))
    tokens = np.concatenate([np.concatenate([X, ASKED]), np.concatenate([Y, 0 * ASKED])], axis=1)
    x = stack(params["embed"], tokens)
    for i in range(2):
        layer = params[f"blocks_{i}"]
        q, k, v = (dense(layer[name], x) for name in ("query", "key", "value"))
        x = norm(layer["norms_0"], x + dense(layer["join"], attention(q, k[:4], v[:4])))
        x = norm(layer["norms_1"], x + stack(layer["rest"], x))
    np.testing.assert_allclose(answers, stack(params["answer"], x)[4:], rtol=1e-3, atol=1e-4)


def test_the_convolutional_net_by_sums():
    answers, params = found(process_conv(2, width=3, layers=2, reach=1.5, density=4))
    grid = np.linspace(-1.5, 1.5, 13)

    def near(x, log_length):
        return np.exp(-(((x - grid) / np.exp(log_length)) ** 2) / 2)

    weights = near(X, params["into"]) * WEIGHT[:, None]
    density = weights.sum(axis=0)
    signal = weights.T @ Y[:, 0] / (density + 1e-5)
    rows = dense(params["first"], np.stack([density, signal], axis=1))
    for i in range(2):
        layer, active = params[f"blocks_{i}"], np.pad(np.maximum(rows, 0), ((2, 2), (0, 0)))
        kernel = layer["kernel"].reshape(5, 3, 3)
        mixed = sum(active[tap : tap + 13] @ kernel[tap] for tap in range(5))
        rows = rows + mixed + layer["bias"]
    expected = dense(params["last"], near(ASKED, params["back"]) @ np.maximum(rows, 0))
    np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-4)


def test_scales_are_bounded_from_below_or_exponentials():
    outputs = jnp.array([[1.0, 2.0, -50.0, 0.5]])
    mean, scale = as_normal(outputs, 0.1)
    np.testing.assert_array_equal(mean, [[1, 2]])
    np.testing.assert_allclose(scale, [[0.1, 0.1 + 0.9 * np.log1p(np.exp(0.5))]], rtol=1e-6)
    np.testing.assert_allclose(as_normal(outputs, 0.0).scale, [np.exp([-50, 0.5])], rtol=1e-6)


def test_widths_that_do_not_divide_among_the_heads_are_refused():
    with pytest.raises(InputError, match="cannot have width=6, heads=4, layers=1 and out=2"):
        process_transformer(2, width=6, layers=1)
    with pytest.raises(InputError, match="cannot have width=6, heads=4 and out=2"):
        process_paths(2, width=6, heads=4)
    with pytest.raises(InputError, match="reach=0"):
        process_conv(2, reach=0)
