"""Trust-region policy optimisation (TRPO; Schulman et al. 2015, arXiv:1502.05477).

A step goes along the natural gradient, as far as the mean KL divergence from the old policy allows.
This is no `GradFn`, because a line search sets the length of the step. It evaluates loss and
divergence at several points, and a gradient does not give these. So `trust_region` takes parameters
and returns parameters. Call it from a `StepFn`.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Bool

from jaxdl.errors import InputError
from jaxdl.parallel import device_axes
from jaxdl.types import Array, Count, Metrics, Params, PyTree, Scalar

Tree = TypeVar("Tree")

Search = tuple[Count, Scalar, Scalar, Scalar]
"""State of a line search: points tried, then share of the step, divergence and improvement."""

Compare = Callable[[PyTree, PyTree], Scalar]
"""`(old, new) -> scalar`: a function of the old and the new outputs of a policy."""


def trust_region(
    predict: Callable[[Params], PyTree],
    surrogate: Compare,
    divergence: Compare,
    params: Params,
    *,
    max_kl: float = 0.01,
    cg_steps: int = 10,
    damping: float = 1e-5,
    backtracks: int = 15,
    shrink: float = 0.8,
    curvature: tuple[Callable[[Params], PyTree], Compare] | None = None,
    axis_name: str | None = None,
) -> tuple[Params, Metrics]:
    """One step that lowers `surrogate`, with a `divergence` of at most `max_kl`.

    Both compare the policy's outputs at some states, before and after the step. The divergence has
    its minimum, 0, where the outputs are equal. Its gradient by the outputs is 0 there. So its
    Hessian by the parameters is J' H J: J is the Jacobian of `predict`, and H the Hessian by the
    outputs. This is exact, and needs no second derivative of `predict`, which may contain a
    gradient itself (MAML). `predict` is linearised once for all products.

    Args:
        predict: the policy's outputs at the states, as a function of the parameters.
        surrogate: the objective to minimise, such as minus the mean of ratio times advantage.
        divergence: the mean KL divergence of the new outputs from the old.
        max_kl: the largest divergence of a step.
        cg_steps: steps of conjugate gradients towards the natural gradient.
        damping: factor of the identity that is added to the Hessian.
        backtracks: number of points that the line search tries. At the first, the quadratic model
            predicts a divergence of `max_kl`. The search takes the first point that lowers the
            surrogate within the region. If there is none, the parameters do not change.
        shrink: factor on the step from each tried point to the next.
        curvature: a `predict` and a `divergence` that replace the others in the Hessian alone. Its
            products are most of the work, so use a part of the states there (appendix C.1).
        axis_name: the pmap axis over which gradients, products and values are averaged.

    Raises:
        InputError: inside a `jax.shard_map` that keeps the axes of arrays in their types.

    Returns:
        The parameters, and metrics: `kl` and `improvement` of the surrogate at the new parameters,
        and `taken`, the length of the step as a share of the first point's (0 for no step).
    """

    if axis_name is not None and device_axes(lax.axis_index(axis_name)):
        raise InputError(
            "shard_map adds up gradients before their mean is taken. Run this step by pmap, or by"
            " jax.shard_map(..., check_vma=False)"
        )

    def mean(tree: Tree) -> Tree:
        return tree if axis_name is None else lax.pmean(tree, axis_name)

    old, pull = jax.vjp(predict, params)
    (gradient,) = mean(pull(jax.grad(surrogate, argnums=1)(old, old)))

    outputs, apart = curvature or (predict, divergence)
    here, forward = jax.linearize(outputs, params)
    backward = jax.linear_transpose(forward, params)

    def product(direction: Params) -> Params:
        slope = jax.grad(apart, argnums=1)
        _, bent = jax.jvp(lambda new: slope(here, new), (here,), (forward(direction),))
        (back,) = mean(backward(bent))
        return jax.tree.map(lambda a, b: a + damping * b, back, direction)

    direction, _ = cg(product, gradient, tol=0.0, maxiter=cg_steps)
    bent = _dot(direction, product(direction))
    # If the gradient is zero, so is the direction, and its length has no effect.
    length = jnp.sqrt(2 * max_kl / jnp.maximum(bent, np.finfo(bent.dtype).tiny))
    before = mean(surrogate(old, old))

    def at(share: Scalar) -> Params:
        return jax.tree.map(lambda p, d: p - share * length * d, params, direction)

    def search(carry: Search) -> Search:
        tried, _, _, _ = carry
        share = shrink ** tried.astype(length.dtype)
        new = predict(at(share))
        value, kl = mean((surrogate(old, new), divergence(old, new)))
        good = (value < before) & (kl <= max_kl)  # false for NaN
        zero = jnp.zeros_like(value)
        return tried + 1, *jax.tree.map(
            lambda found: jnp.where(good, found, zero), (share, kl, before - value)
        )

    def goes_on(carry: Search) -> Bool[Array, ""]:
        tried, share, _, _ = carry
        return (tried < backtracks) & (share == 0)

    zero = jnp.zeros_like(before)
    _, share, kl, improvement = lax.while_loop(goes_on, search, (jnp.int32(0), zero, zero, zero))
    moved = jax.tree.map(lambda new, p: jnp.where(share > 0, new, p), at(share), params)
    return moved, {"kl": kl, "improvement": improvement, "taken": share}


def _dot(a: Params, b: Params) -> Scalar:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), start=jnp.zeros(()))
