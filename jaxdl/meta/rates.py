"""Learning rates of inner steps as an argument, so that they can be meta-learned; and checks.

Optax drops extra arguments if a transformation takes none. JAX accepts an index past the end of an
array. So without checks, unused rates, or a wrong number of them, would cause no error.
"""

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval

from jaxdl.errors import InputError
from jaxdl.types import Grads, Params, PyTree


def scale_by_rates() -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the extra argument `rates`. Chain it last in an inner optimiser.

    `rates` is a tree prefix of the parameters: one number, one per layer, or one per parameter. It
    is an argument and not a constant of the transformation, so it can be meta-learned (Meta-SGD, Li
    et al. 2017; LSLR of MAML++).

    Raises:
        InputError: from its update, if `rates` is missing.

    >>> import jax.numpy as jnp, jaxdl
    >>> def loss(params, key):
    ...     value = params["a"] + params["b"]
    ...     return value, {"loss": value}
    >>> params = {"a": jnp.float32(0), "b": jnp.float32(0)}
    >>> rates = {"a": jnp.array([0.5, 0.25]), "b": jnp.zeros(2)}  # [steps], one per parameter
    >>> found, _ = jaxdl.descend(loss, params, jaxdl.scale_by_rates(), steps=2, rates=rates)
    >>> float(found["a"]), float(found["b"])
    (-0.75, 0.0)
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
            raise InputError("scale_by_rates needs rates: give descend the argument rates=")
        scaled = jax.tree.map(
            lambda rate, below: jax.tree.map(lambda leaf: -rate * leaf, below), rates, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def at_each_step(rates: PyTree, steps: int) -> PyTree:
    """The same rates at each of so many steps: a leading axis `[steps]`.

    >>> import jax.numpy as jnp
    >>> at_each_step(jnp.array([0.1, 0.2]), steps=3).shape
    (3, 2)
    """
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (steps, *leaf.shape)), rates)


def check_rates(
    rates: PyTree,
    each: PyTree,
    steps: int,
    tx: optax.GradientTransformation,
    state: PyTree,
    params: Params,
) -> None:
    """Validates that `rates` and `each` fit the steps, and that `tx` reads the rates.

    It runs while tracing only.

    Args:
        rates: a pytree of arrays `[steps, ...]`, or None.
        each: a tuple of such pytrees.
        tx: an optimiser that takes extra arguments. `state` is its state for these parameters.

    Raises:
        InputError: if not.
    """
    if not isinstance(each, tuple):
        raise InputError("`each` is no tuple. Write `each=(norms,)` for one argument of the loss")
    for name, values in {"rates": rates, "each": each}.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(values):
            if jnp.shape(leaf)[:1] != (steps,):
                raise InputError(
                    f"{name}{jax.tree_util.keystr(path)} is {list(jnp.shape(leaf))}, and there are"
                    f" {steps} inner steps: give it a leading axis [{steps}], one entry per step"
                )
    if rates is not None and not reads(tx, rates, state, params):
        raise InputError(
            "the inner optimiser does not read rates, so they would change nothing: chain"
            " scale_by_rates() as its last link, or leave out rates"
        )


def reads(tx: optax.GradientTransformation, rates: PyTree, state: PyTree, params: Params) -> bool:
    """Whether updates or state of `tx` depend on any leaf of `rates`.

    The traced program of an update shows it, for every transformation. An attribute of
    `scale_by_rates` would not do: `optax.chain` and `optax.partition` are closures and would lose
    it, and a user's own transformation would not have it.
    """

    def update(rates: PyTree, state: PyTree, params: Params) -> PyTree:
        # Gradients have the shapes of parameters, so the parameters stand in for them.
        return tx.update(params, state, params, rates=rates)

    each = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], jnp.result_type(leaf)), rates
    )
    program = jax.make_jaxpr(update)(each, state, params).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    return any(used[: len(jax.tree.leaves(each))])
