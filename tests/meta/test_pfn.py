"""PFN: a set has no order, weights are counts, and one layer by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxdl.errors import InputError
from jaxdl.models.context import Context
from jaxdl.models.context_transformer import context_transformer

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
EXAMPLES, QUERIES = (np.float32(RNG.normal(size=(n, 3))) for n in (5, 2))
NET = context_transformer(out=2, width=4, heads=2, layers=2)
CONTEXT = Context(jnp.asarray(EXAMPLES), jnp.array([1.0, 2, 1, 0.5, 1]), jnp.asarray(QUERIES))
PARAMS = jax.jit(NET.init)(KEY, CONTEXT)
APPLY = jax.jit(NET.apply)


def test_the_order_of_examples_has_no_meaning():
    order = jnp.array([3, 1, 4, 0, 2])
    turned = CONTEXT._replace(examples=CONTEXT.examples[order], weight=CONTEXT.weight[order])
    np.testing.assert_allclose(APPLY(PARAMS, turned), APPLY(PARAMS, CONTEXT), atol=1e-5)


def test_an_example_of_weight_2_is_the_example_twice():
    again = jnp.concatenate([CONTEXT.examples, CONTEXT.examples[1:2]])
    twice = CONTEXT._replace(examples=again, weight=jnp.array([1.0, 1, 1, 0.5, 1, 1]))
    np.testing.assert_allclose(APPLY(PARAMS, twice), APPLY(PARAMS, CONTEXT), atol=1e-5)


def test_the_whole_net_by_numpy_with_a_mask_over_all_tokens():
    """As the paper has it: one sequence of examples and queries, and a mask. In float64."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, float), PARAMS)
    n, m = 5, 2
    seen = np.zeros((n + m, n + m))
    seen[:, :n] = np.asarray(CONTEXT.weight)
    seen[n:, n:] = np.eye(m)

    def dense(params, x):
        return x @ params["kernel"] + params["bias"]

    def norm(params, x):
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        return x * params["scale"] + params["bias"]

    def gelu(x):  # JAX's default, by tanh, is within 1e-3 of it
        return x * (1 + erf(x / np.sqrt(2))) / 2

    x = dense(weights["Dense_0"], np.concatenate([EXAMPLES, QUERIES]).astype(float))
    for i in range(2):
        layer = weights[f"Layer_{i}"]
        rows = norm(layer["LayerNorm_0"], x)
        q, k, v = (dense(layer[f"Dense_{j}"], rows).reshape(n + m, 2, 2) for j in range(3))
        read = np.zeros((n + m, 2, 2))
        for head in range(2):
            shares = seen * np.exp(q[:, head] @ k[:, head].T / np.sqrt(2))
            read[:, head] = shares @ v[:, head] / shares.sum(axis=1, keepdims=True)
        x = x + dense(layer["Dense_3"], read.reshape(n + m, 4))
        wide = gelu(dense(layer["Dense_4"], norm(layer["LayerNorm_1"], x)))
        x = x + dense(layer["Dense_5"], wide)
    expected = dense(weights["Dense_1"], norm(weights["LayerNorm_0"], x))[n:]
    np.testing.assert_allclose(APPLY(PARAMS, CONTEXT), expected, atol=5e-3)


def test_a_width_that_does_not_divide_among_the_heads_is_refused():
    with pytest.raises(InputError, match="cannot have width=6, heads=4, layers=1 and out=2"):
        context_transformer(2, width=6, layers=1)
