"""The LSTM learner: the paper's recurrence, step by step in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.losses import cross_entropy
from jaxdl.meta.lstm_learner import lstm_learner
from jaxdl.types import Batch, Model

IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)


def test_a_query_is_the_last_step_after_all_examples(key):
    rng = np.random.default_rng(0)
    x, y, asked = rng.normal(size=(4, 3)), np.array([1, 0, 1, 1]), rng.normal(size=(2, 3))
    learner = lstm_learner(IDENTITY, cross_entropy, ways=2, units=3)
    params = learner.init(key, jnp.float32(x))
    cell, head = params.net["layer_0"]["forward"], params.net["head"]
    assert cell["input"].shape == (3 + 2 + 1, 4 * 3)
    weights = np.concatenate([cell["input"], cell["recurrent"]]).astype(float)
    bias, gates = np.asarray(cell["bias"], float), slice(3, 6)
    assert (bias[gates] == 1).all()  # the forget gate

    def step(token, h, c):
        i, f, g, o = np.split(np.concatenate([token, h]) @ weights + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        return o * np.tanh(c), c

    state = np.zeros(3), np.zeros(3)
    for row, label in zip(x, y, strict=True):
        state = step(np.concatenate([row, np.eye(2)[label], [1]]), *state)
    last = [step(np.concatenate([row, np.zeros(3)]), *state)[0] for row in asked]
    expected = np.stack(last) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    adapted = jax.jit(learner.adapt)(key, params, Batch(jnp.float32(x), jnp.asarray(y)))
    found = learner.predict(adapted, jnp.float32(asked))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
