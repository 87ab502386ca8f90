"""Linear solvers for implicit gradients: `A x = b`, where A is known by its products alone.

A is symmetric, as a Hessian is. It may be indefinite, because the net of an inner problem is not
convex. Both solvers take a fixed number of steps, so that they work under jit and vmap.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxdl.errors import InputError
from jaxdl.parallel import differing_as
from jaxdl.types import PyTree, Scalar

Product = Callable[[PyTree], PyTree]
"""`v -> A v`, for a symmetric matrix A and trees `v` of one structure."""

Solver = Callable[[Product, PyTree], PyTree]
"""`(product, b) -> x`, about the solution of `A x = b`."""


def conjugate_gradients(
    product: Product,
    b: PyTree,
    *,
    steps: int,
    damping: float = 0.0,
    least_curvature: float = 0.0,
) -> PyTree:
    """Solves `(A + damping I) x = b` by `steps` steps of conjugate gradients, one product each.

    It is exact after as many steps as A has different eigenvalues, up to rounding. It stops when
    the residual is at rounding.

    It also stops at a direction of non-positive curvature, and returns the solution so far, as
    truncated Newton methods do. A step along such a direction would be huge or lead away. If it is
    the first direction, which is `b`, or with 0 steps, the result is `b / (1 + damping)`, as if A
    were the identity. So it is if the square of `b` is 0 in float32, below about 1e-19: scale it.

    Args:
        damping: added to each eigenvalue of A, 0 or more. A large one makes an indefinite A
            positive definite, and shrinks the solution.
        least_curvature: it stops at a direction d if `d (A + damping I) d` is not above
            `least_curvature * d d`. Give more than 0 if it is known that A should have no smaller
            eigenvalue.

    Raises:
        InputError: if `steps` is below 0.

    >>> import jax.numpy as jnp, jaxdl
    >>> matrix = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> x = jaxdl.conjugate_gradients(lambda v: matrix @ v, jnp.array([6.0, 7.0]), steps=2)
    >>> [round(number, 4) for number in x.tolist()]
    [1.0, 2.0]
    """
    _check(steps)
    first = _dot(b, b)
    rounding = float(np.finfo(first.dtype).eps) ** 2 * first

    def step(carry: PyTree, _: None) -> tuple[PyTree, None]:
        x, residual, direction, square, active, moved = carry
        image = _plus(product(direction), damping, direction)
        curvature = _dot(direction, image)
        trusted = curvature > least_curvature * _dot(direction, direction)
        active = active & trusted & (square > rounding)
        rate = jnp.where(active, square / jnp.where(active, curvature, 1), 0)
        x = _plus(x, rate, direction)
        residual = _plus(residual, -rate, image)
        new_square = _dot(residual, residual)
        ratio = jnp.where(active, new_square / jnp.where(active, square, 1), 0)
        direction = _plus(residual, ratio, direction)
        return (x, residual, direction, new_square, active, moved | active), None

    start = (optax.tree.zeros_like(b), b, b, first, jnp.bool_(True), jnp.bool_(False))
    (x, *_, moved), _ = lax.scan(step, differing_as(start, b), length=steps)
    plain = optax.tree.scale(1 / (1 + damping), b)
    return jax.tree.map(lambda solved, other: jnp.where(moved, solved, other), x, plain)


def neumann(product: Product, b: PyTree, *, steps: int, rate: float) -> PyTree:
    """Solves `A x = b` by the first `steps + 1` terms of the Neumann series, one product each.

    `x = rate * sum of (I - rate A)^j b` for j from 0 to `steps` (Lorraine, Vicol, Duvenaud 2019,
    arXiv:1911.02590, algorithm 3). It converges if all eigenvalues of A lie in `(0, 2 / rate)`.
    With the learning rate of gradient descent as `rate`, it is the gradient through the last
    `steps + 1` steps at the solution.

    It ends before a term that is longer than the one before, because then an eigenvalue lies
    outside of `[0, 2 / rate]`, and later terms would grow without end.

    Args:
        rate: above 0, and below 2 over the largest eigenvalue of A.

    Raises:
        InputError: if `steps` is below 0.

    >>> import jax.numpy as jnp, jaxdl
    >>> diagonal = jnp.array([1.0, 2.0])
    >>> jaxdl.neumann(lambda v: diagonal * v, jnp.array([1.0, 1.0]), steps=2, rate=0.5).tolist()
    [0.875, 0.5]
    """
    _check(steps)

    def step(carry: PyTree, _: None) -> tuple[PyTree, None]:
        total, term, square, active = carry
        term = _plus(term, -rate, product(term))
        new_square = _dot(term, term)
        active = active & (new_square <= square)
        total = jax.tree.map(lambda old, new: jnp.where(active, old + new, old), total, term)
        return (total, term, new_square, active), None

    start = (b, b, _dot(b, b), jnp.bool_(True))
    (total, *_), _ = lax.scan(step, differing_as(start, b), length=steps)
    return _plus(optax.tree.zeros_like(b), rate, total)


def _dot(x: PyTree, y: PyTree) -> Scalar:
    """The inner product. Sums of 16-bit floats would lose its digits, so it is wider."""
    wide = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, "float32"))  # noqa: E731
    return optax.tree.vdot(jax.tree.map(wide, x), jax.tree.map(wide, y))


def _plus(x: PyTree, scale: Scalar | float, y: PyTree) -> PyTree:
    """`x + scale * y`, in the dtype of x: a float32 scale would widen 16-bit floats."""
    return jax.tree.map(lambda a, b: (a + scale * b).astype(a.dtype), x, y)


def _check(steps: int) -> None:
    if steps < 0:
        raise InputError(f"steps={steps}: choose 0 or more steps of the solver")
