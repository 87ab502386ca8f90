"""Forward propagation, backpropagation and the updates, written out by hand in float64.

The equations are those of the textbooks, an example a column: Z = W A + b, A' = g(Z), and backwards
dZ = W'^T dZ' * g'(Z), dW = dZ A^T / m, db = mean of dZ. The mean over the m examples is taken once,
in dW and db, and not in dZ too.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdl.grads import supervised
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.mlp import mlp
from jaxdl.train.steps import init_state, make_step
from jaxdl.types import Batch

EXAMPLES, INPUTS, OUTPUTS = 7, 5, 3
NETS = {"one hidden layer": (4,), "three hidden layers": (4, 6, 3)}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gelu(z):
    """0.5 z (1 + t), t = tanh(u), u = sqrt(2 / pi) (z + 0.044715 z^3); Hendrycks, Gimpel 2016."""
    t = np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))
    du = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)
    return 0.5 * z * (1 + t), 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * du


# Each: Flax's function, and z -> (g(z), g'(z)) by hand.
ACTIVATIONS = {
    "sigmoid": (nn.sigmoid, lambda z: (sigmoid(z), sigmoid(z) * (1 - sigmoid(z)))),
    "tanh": (jnp.tanh, lambda z: (np.tanh(z), 1 - np.tanh(z) ** 2)),
    "relu": (nn.relu, lambda z: (np.maximum(z, 0), (z > 0).astype(float))),
    "gelu": (nn.gelu, gelu),
    "silu": (nn.silu, lambda z: (z * sigmoid(z), sigmoid(z) * (1 + z * (1 - sigmoid(z))))),
}


def softmax_loss(z, labels):
    """Mean cross-entropy, and dZ = P - Y of each example, not divided by m."""
    p = np.exp(z) / np.exp(z).sum(0)
    y = np.eye(OUTPUTS)[labels].T
    return -np.mean(np.sum(y * np.log(p), 0)), p - y


def squared_loss(z, targets):
    """Mean over examples and outputs of the squared error, and dZ of each example."""
    return np.mean((z - targets.T) ** 2), 2 * (z - targets.T) / OUTPUTS


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, INPUTS))
    return x, {
        "cross-entropy": (cross_entropy, softmax_loss, rng.integers(0, OUTPUTS, EXAMPLES)),
        "squared error": (mean_squared_error, squared_loss, rng.normal(size=(EXAMPLES, OUTPUTS))),
    }


X, LOSSES = data()


def layers_of(hidden):
    """Weights `[out, in]` and biases `[out, 1]`, as the equations have them."""
    rng, widths = np.random.default_rng(1), (INPUTS, *hidden, OUTPUTS)
    return [
        (rng.normal(size=(out, into)), rng.normal(size=(out, 1))) for into, out in pairwise(widths)
    ]


def as_params(layers):
    """The same, as the mlp keeps them."""
    return {
        f"Dense_{i}": {"kernel": jnp.asarray(w.T), "bias": jnp.asarray(b[:, 0])}
        for i, (w, b) in enumerate(layers)
    }


def backpropagation(layers, activation, loss, y):
    """The loss, and (dW, db) of each layer."""
    g = ACTIVATIONS[activation][1]
    a, z, slope = [X.T], None, []
    for w, b in layers:
        z = w @ a[-1] + b
        value, derivative = g(z)
        a.append(value)
        slope.append(derivative)
    value, dz = LOSSES[loss][1](z, y)
    grads = []
    for i in reversed(range(len(layers))):
        grads.append((dz @ a[i].T / EXAMPLES, dz.mean(1, keepdims=True)))
        if i:
            dz = layers[i][0].T @ dz * slope[i - 1]
    return value, grads[::-1]


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), found, expected
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", NETS.values(), ids=NETS)
def test_the_gradient_is_that_of_the_equations(hidden, activation, loss):
    ours, _, y = LOSSES[loss]
    layers = layers_of(hidden)
    value, grads = backpropagation(layers, activation, loss, y)
    grad = supervised(mlp((*hidden, OUTPUTS), activation=ACTIVATIONS[activation][0]), ours)
    batch = Batch(jnp.asarray(X), jnp.asarray(y))
    found, metrics = grad(jax.random.key(0), jnp.int32(0), as_params(layers), batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-12)
    close(found, as_params(grads))


def plain(w, g, state, step):
    del step
    return w - 0.1 * g, state


def momentum(w, g, velocity, step):
    del step
    velocity = 0.9 * velocity + g
    return w - 0.1 * velocity, velocity


def adam(w, g, moments, step):
    """Kingma, Ba 2014: both moments corrected for their start at zero."""
    m, v = moments
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
    return w - 0.1 * m_hat / (np.sqrt(v_hat) + 1e-8), (m, v)


def adam_with_decay(w, g, moments, step):
    """Loshchilov, Hutter 2019: the decay is no part of the gradient."""
    new, moments = adam(w, g, moments, step)
    return new - 0.1 * 0.01 * w, moments


UPDATES = {
    "gradient descent": (optax.sgd(0.1), plain, 0.0),
    "momentum": (optax.sgd(0.1, momentum=0.9), momentum, 0.0),
    "adam": (optax.adam(0.1), adam, (0.0, 0.0)),
    "adam with weight decay": (optax.adamw(0.1, weight_decay=0.01), adam_with_decay, (0.0, 0.0)),
}


@pytest.mark.parametrize("name", UPDATES)
def test_three_steps_are_those_of_the_equations(name):
    """Three, for momentum and Adam's corrections show from the second on."""
    tx, update, zero = UPDATES[name]
    _, _, y = LOSSES["cross-entropy"]
    layers = layers_of((4,))
    step = jax.jit(make_step(supervised(mlp((4, OUTPUTS), activation=jnp.tanh), cross_entropy), tx))
    state = init_state(as_params(layers), tx)
    memory = [[zero, zero] for _ in layers]
    for i in range(3):
        state, _ = step(jax.random.key(i), state, Batch(jnp.asarray(X), jnp.asarray(y)))
        _, grads = backpropagation(layers, "tanh", "cross-entropy", y)
        for layer, pair in enumerate(grads):
            new = list(layers[layer])
            for j, g in enumerate(pair):
                new[j], memory[layer][j] = update(new[j], g, memory[layer][j], i + 1)
            layers[layer] = tuple(new)
        close(state.params, as_params(layers))
