"""Curvature of layers: a matrix for each axis of a kernel, which transforms its gradient."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.types import Array, Grads, Params, PyTree


class Curvature(NamedTuple):
    """The three matrices of a kernel `[*filter, inputs, outputs]`, whose filter has d places.

    A dense layer has a filter of 1 place.
    """

    filter: Float[Array, "d d"]
    inputs: Float[Array, "i i"]
    outputs: Float[Array, "o o"]


def identities(params: Params) -> PyTree:
    """For each kernel a `Curvature` of identities; for each bias or scale an array of ones.

    >>> import jax.numpy as jnp
    >>> found = identities({"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)})
    >>> [matrix.shape for matrix in found["kernel"]], found["bias"].shape
    ([(9, 9), (2, 2), (8, 8)], (8,))
    """

    def of_leaf(leaf: Array) -> Curvature | Array:
        if leaf.ndim < 2:
            return jnp.ones_like(leaf)
        *places, inputs, outputs = leaf.shape
        lengths = math.prod(places), inputs, outputs
        return Curvature(*(jnp.eye(length, dtype=leaf.dtype) for length in lengths))

    return jax.tree.map(of_leaf, params)


def curved(curvature: PyTree, grads: Grads) -> Grads:
    """The gradients, multiplied by the matrices of each kernel, and by the numbers of each bias.

    The whole of a kernel's transformation is the Kronecker product of its three matrices.

    >>> import jax.numpy as jnp
    >>> kernel = Curvature(jnp.eye(1), 2 * jnp.eye(3), 5 * jnp.eye(4))
    >>> curved({"kernel": kernel}, {"kernel": jnp.ones((3, 4))})["kernel"][0].tolist()
    [10.0, 10.0, 10.0, 10.0]
    """

    def of_leaf(by: Curvature | Array, grad: Array) -> Array:
        if not isinstance(by, Curvature):
            return by * grad
        flat = grad.reshape(-1, *grad.shape[-2:])
        found = jnp.einsum("fg,ij,op,gjp->fio", by.filter, by.inputs, by.outputs, flat)
        return found.reshape(grad.shape)

    return jax.tree.map(of_leaf, curvature, grads, is_leaf=lambda x: isinstance(x, Curvature))


def scale_by_curvature(learning_rate: float) -> optax.GradientTransformationExtraArgs:
    """Gradient descent on gradients that a curvature transforms. It is the extra argument `rates`.

    Raises:
        InputError: from its update, if `rates` is missing.
    """

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: PyTree = None,
        *,
        rates: PyTree = None,
        **_: object,
    ) -> tuple[Grads, optax.OptState]:
        del params
        if rates is None:
            raise InputError("scale_by_curvature needs rates: give descend the argument rates=")
        found = curved(rates, updates)
        return jax.tree.map(lambda leaf: -learning_rate * leaf, found), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
