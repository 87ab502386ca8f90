"""Factorisations of many small matrices that are safe where the cores of a CPU are devices.

There batches of LAPACK calls can deadlock in jaxlib 0.10.2: the threads of all devices stand still,
for Cholesky, QR and singular values. So under `vmap` one matrix follows another. Elsewhere, on one
device or an accelerator, they are LAPACK's batches as ever.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.scipy.linalg import cho_solve
from jaxtyping import Float

from jaxdl.types import Array

Matrix = Float[Array, "n n"]
Columns = Float[Array, "n k"]


def cholesky(a: Matrix) -> Matrix:
    """The lower triangle whose product with its transpose is `a`, of which the lower half is read.

    It has no derivative where the cores of a CPU are devices.

    >>> import jax.numpy as jnp
    >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    return in_turn(lambda a: lax.linalg.cholesky(a, symmetrize_input=False))(a)


def solve_positive(a: Matrix, b: Columns) -> Columns:
    """The x with `a @ x = b`, for a symmetric positive definite `a`. It has all derivatives.

    >>> import jax.numpy as jnp
    >>> solve_positive(jnp.array([[4.0, 2.0], [2.0, 5.0]]), jnp.array([[8.0], [12.0]])).tolist()
    [[1.0], [2.0]]
    """
    if not _cores_are_devices():
        return jax.scipy.linalg.solve(a, b, assume_a="pos")
    dtype = jnp.result_type(a, b)  # `solve` above does that, too
    a, b = a.astype(dtype), b.astype(dtype)
    factor = cholesky(lax.stop_gradient(a))
    solve = in_turn(lambda factor, b: cho_solve((factor, True), b))
    # The derivatives of a solution are solutions, too, so that nobody derives `sequential_vmap`.
    found = lax.custom_linear_solve(
        lambda x: a @ x, b, lambda _, b: solve(factor, b), symmetric=True
    )
    return cast(Array, found)


def _cores_are_devices() -> bool:
    return jax.default_backend() == "cpu" and jax.local_device_count() > 1


def in_turn(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of arrays that calls LAPACK, as one that is safe under `vmap`.

    It has no derivative where the cores of a CPU are devices.
    """
    return sequential_vmap(function) if _cores_are_devices() else function
