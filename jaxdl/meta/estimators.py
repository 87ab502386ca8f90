"""Estimators: how a meta-gradient passes through the gradients of inner steps.

An `Estimator` turns an inner loss into its gradient function. Estimators differ in the *second*
derivative alone. All but `first_order` give the exact meta-gradient, at different costs in memory
and time: see docs/memory.md.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.types import Array, Grads, Key, Params, PyTree, Scalar

InnerLoss = Callable[..., tuple[Scalar, PyTree]]
"""`(params, key, *args) -> (scalar, metrics)`. Gradients flow through `params` and `args` alone.

Metrics may be any tree of arrays of one step, such as its trajectories.
"""

InnerGrad = Callable[..., tuple[Grads, PyTree]]
"""`(params, key, *args) -> (grads, metrics)`."""

Estimator = Callable[[InnerLoss], InnerGrad]
"""Turns an inner loss into its gradient, and decides how a meta-gradient passes through it."""

Residuals = tuple[Params, Key | None, tuple[PyTree, ...]]
"""What `mixed_mode` keeps for its backward pass: all arguments of the loss."""


def exact(loss: InnerLoss) -> InnerGrad:
    """Plain `jax.grad`: the outer `jax.grad` differentiates it by reverse over reverse mode.

    >>> import jaxdl
    >>> grads, metrics = jaxdl.exact(lambda w, key: (w**2, {}))(3.0, None)
    >>> float(grads)
    6.0
    """
    return jax.grad(loss, has_aux=True)


def first_order(loss: InnerLoss) -> InnerGrad:
    """The inner gradient as a constant: FOMAML (Finn et al. 2017, section 5.2).

    >>> import jax, jaxdl
    >>> inner = jaxdl.first_order(lambda w, key: (w**2, {}))
    >>> float(jax.grad(lambda w: w - 0.1 * inner(w, None)[0])(3.0))  # exact: 1 - 0.1 * 2
    1.0
    """
    grad = exact(loss)

    def constant_grad(*args: PyTree) -> tuple[Grads, PyTree]:
        return lax.stop_gradient(grad(*args))

    return constant_grad


def rematerialised(loss: InnerLoss) -> InnerGrad:
    """Exact, with the activations of each inner step computed again instead of stored.

    >>> import jax, jaxdl
    >>> inner = jaxdl.rematerialised(lambda w, key: (w**2, {}))
    >>> round(float(jax.grad(lambda w: w - 0.1 * inner(w, None)[0])(3.0)), 6)
    0.8
    """
    return jax.checkpoint(exact(loss))


def mixed_mode(loss: InnerLoss) -> InnerGrad:
    """Exact, by forward over reverse mode (MixFlow-MG, Kemaev et al. 2025, arXiv:2505.00793).

    The vector-Jacobian product of an inner gradient is a Hessian-vector product, and the Hessian is
    symmetric, so `jvp(grad)` gives it without storing what reverse over reverse mode stores. One
    jvp of the gradient by parameters *and* arguments gives the mixed blocks too, for meta-learned
    losses or data. Metrics carry no gradient.

    >>> import jax, jaxdl
    >>> inner = jaxdl.mixed_mode(lambda w, key: (w**2, {}))
    >>> round(float(jax.grad(lambda w: w - 0.1 * inner(w, None)[0])(3.0)), 6)
    0.8
    """
    grad = exact(loss)

    @jax.custom_vjp
    def mixed(params: Params, key: Key | None, args: tuple[PyTree, ...]) -> tuple[Grads, PyTree]:
        return grad(params, key, *args)

    def forward(params: Params, key: Key | None, args: PyTree) -> tuple[PyTree, Residuals]:
        # Not `mixed`: the second derivative of a scan over it would be wrong, in silence
        # (findings/jax-custom-vjp-in-scan.sh).
        return grad(params, key, *args), (params, key, args)

    def backward(residuals: Residuals, cotangents: PyTree) -> tuple[Grads, None, PyTree]:
        params, key, args = residuals
        # Labels and other integers have no gradient: `some` holds the other leaves of `args`.
        leaves, structure = jax.tree.flatten(args)
        smooth = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

        # The gradient of the inner loss by the parameters and by `some`, at the parameters `at`.
        def all_grads(at: Params) -> tuple[Grads, list[Array]]:
            def value(at: Params, some: list[Array]) -> Scalar:
                given = iter(some)
                merged = [
                    next(given) if s else leaf for s, leaf in zip(smooth, leaves, strict=True)
                ]
                return loss(at, key, *jax.tree.unflatten(structure, merged))[0]

            some = [leaf for s, leaf in zip(smooth, leaves, strict=True) if s]
            return jax.grad(value, argnums=(0, 1))(at, some)

        # Its derivative in the direction v, the cotangent, is (H v, M v). H is the Hessian, and
        # symmetric, so H v is the v H of a vjp. M has a row per number of `some`: M v is, in the
        # same way, the vjp of the gradient by `some`.
        _, (by_params, by_some) = jax.jvp(all_grads, (params,), (cotangents[0],))
        given = iter(by_some)
        by_args = jax.tree.unflatten(structure, [next(given) if s else None for s in smooth])
        return by_params, None, by_args

    mixed.defvjp(forward, backward)

    def mixed_grad(params: Params, key: Key | None, *args: PyTree) -> tuple[Grads, PyTree]:
        return mixed(params, key, jax.tree.map(jnp.asarray, args))

    return mixed_grad
