"""What is said to XLA shows in the compiled program, and changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.xla import after, all_at_once, fenced, together, turned, turned_back


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


@pytest.mark.parametrize("first", [0.5, jnp.nan, -jnp.inf, jnp.inf])
@pytest.mark.parametrize("fence", [False, True])
def test_a_fenced_function_is_computed_apart_whatever_its_numbers(fence, first):
    x = jnp.arange(12.0).reshape(3, 4).at[0, 0].set(first)
    transposed = lambda x: x.T + 0  # noqa: E731
    run = jax.jit(lambda x: fenced(transposed, x) if fence else transposed(x))
    assert ("conditional(" in run.lower(x).compile().as_text()) == fence
    np.testing.assert_array_equal(run(x), x.T)


@pytest.mark.parametrize("turn", [False, True])
def test_a_turned_operand_is_there_before_the_product(turn):
    """Its own array in the program, and not an axis that the product takes the other way round."""
    a, b = (jax.ShapeDtypeStruct((2, *shape), jnp.float32) for shape in [(30, 40), (30, 50)])

    def product(a, b):
        lhs = turned(a) if turn else jnp.swapaxes(a, 1, 2)
        return lhs @ b

    text = jax.jit(product).lower(a, b).compile().as_text()
    assert ("[2,40,30]" in text) == turn


def test_turning_twice_changes_no_number():
    a = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(jax.jit(lambda a: turned_back(turned(a)))(a), a)
    np.testing.assert_array_equal(turned(a), np.swapaxes(a, 1, 2))


def test_a_reading_comes_whole_before_the_write():
    """One number of a reading decides what is written: without the branch XLA copies the rows."""

    def step(apart, rows):
        reading = lambda: rows[jnp.array([5, 7])]  # noqa: E731
        read = all_at_once(jnp.int32(3), reading) if apart else reading()
        return rows.at[jnp.array([7, 5])].set(read * 2), read.sum()

    rows = jnp.arange(9.0)
    for apart in (False, True):
        written, total = jax.jit(lambda rows, apart=apart: step(apart, rows))(rows)
        np.testing.assert_array_equal(written, [0, 1, 2, 3, 4, 14, 6, 10, 8])
        assert total == 12


def test_what_comes_after_is_itself():
    value = jnp.array([1, -2], jnp.int32)
    found = after(jnp.array([jnp.nan, jnp.inf]), jnp.int32(0), value)
    np.testing.assert_array_equal(found, value)
    assert found.dtype == value.dtype
