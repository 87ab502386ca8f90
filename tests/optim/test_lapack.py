"""Factorisations: NumPy, finite differences, and batches on several CPU devices that end."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdl.optim import lapack
from jaxdl.optim.lapack import cholesky, solve_positive


def positive(key, n, count=()):
    a = jax.random.normal(key, (*count, n, n))
    return a @ jnp.swapaxes(a, -1, -2) + n * jnp.broadcast_to(jnp.eye(n), a.shape)


@pytest.fixture(params=[True, False], ids=["cores are devices", "one device"])
def devices(request, monkeypatch):
    monkeypatch.setattr(lapack, "_cores_are_devices", lambda: request.param)
    return request.param


def test_a_batch_is_numpy_s(devices, key):
    a, b = positive(key, 6, (4,)), jax.random.normal(key, (4, 6, 2))
    found = jax.jit(jax.vmap(cholesky))(a)
    np.testing.assert_allclose(found, np.linalg.cholesky(np.float64(a)), atol=1e-5)
    solved = jax.jit(jax.vmap(solve_positive))(a, b)
    np.testing.assert_allclose(solved, np.linalg.solve(np.float64(a), np.float64(b)), atol=1e-5)


def test_a_solution_has_first_and_second_derivatives_in_both_modes(devices, key):
    a, b = positive(key, 4), jax.random.normal(key, (4, 2))

    def symmetric(a, b):
        """Of a perturbed matrix, one half alone would be read."""
        return solve_positive((a + a.T) / 2, b)

    with jax.enable_x64(True):
        args = np.float64(a), np.float64(b)
        check_grads(symmetric, args, order=2, modes=("fwd", "rev"))
        batched = jax.vmap(symmetric, (0, None))
        check_grads(batched, (np.stack([args[0], 2 * args[0]]), args[1]), order=2, modes=("rev",))


@pytest.mark.parametrize("short", ["a", "b"])
def test_short_floats_beside_whole_ones_are_solved_in_whole_ones(devices, short, key):
    """Their gradients are short again. A ridge with a learned strength has such a pair."""
    given = {"a": positive(key, 4), "b": jax.random.normal(key, (4, 2))}
    given[short] = given[short].astype("bfloat16")
    exact = np.linalg.solve(*(np.float64(given[name].astype("float32")) for name in "ab"))
    found, pull = jax.vjp(lambda a, b: solve_positive(a, b), given["a"], given["b"])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    assert [each.dtype for each in pull(found)] == [given["a"].dtype, given["b"].dtype]


def test_devices_have_the_derivatives_of_one(monkeypatch, key):
    a, b = positive(key, 5, (3,)), jax.random.normal(key, (3, 5, 2))

    def hessian_product(a, b):
        def value(a):
            return jnp.sum(jnp.sin(jax.vmap(solve_positive)(a, b)))

        return jax.grad(lambda a: jnp.vdot(jax.grad(value)(a), a))(a)

    found = []
    for several in (True, False):
        monkeypatch.setattr(lapack, "_cores_are_devices", lambda several=several: several)
        found.append(jax.jit(partial(hessian_product))(a, b))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("work", ["curves", "heads"])
def test_batches_on_two_cores_come_to_an_end(work):
    """In a process of its own, which is stopped if it waits for ever."""
    program = f"""
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 2)
from jaxdl.data.sets.gp import gp
from jaxdl.meta.ridge import ridge

def curves(key):
    return gp("rbf")(key).support.y.sum()

def heads(key):
    x = jax.random.normal(key, (60, 50))
    return jax.grad(lambda x: jnp.sum(ridge(x, x[:, :3], 1.0)))(x).sum()

def of_device(keys):
    return jax.lax.map(jax.vmap({work}), keys).sum()

keys = jax.random.split(jax.random.key(0), 1600).reshape(2, 40, 20)
print(bool(jnp.isfinite(jax.pmap(of_device)(keys)).all()))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr[-500:]
