"""What is said to XLA shows in the compiled program, and changes no number."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdl.xla import together


@pytest.mark.parametrize("wait", [False, True])
def test_large_parameters_are_updated_in_place(wait):
    """A loop of steps copies a kernel that the backward pass may read after its update."""
    shapes = [(1030, 1031), (1031, 1030), (1030, 4)]

    def loss(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    def step(_, params):
        grads = jax.grad(loss)(params, jnp.ones((8, 1030)))
        grads = together(grads) if wait else grads
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    train = jax.jit(lambda params: lax.fori_loop(0, 9, step, params), donate_argnums=0)
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = train.lower(params).compile().as_text()
    copies = [line for line in text.splitlines() if " copy(" in line and "f32[1031,1030]" in line]
    assert bool(copies) != wait


def test_waiting_changes_no_gradient():
    grads = {"a": jnp.linspace(-1, 1, 2**20), "b": jnp.array([jnp.inf, -2, 3], jnp.bfloat16)}
    waited = jax.jit(together)(grads)
    same = jax.tree.map(lambda a, b: bool((a == b).all()) and a.dtype == b.dtype, grads, waited)
    assert jax.tree.all(same)
    assert together(grads["b"]) is grads["b"]  # small: untouched
