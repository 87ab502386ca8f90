"""Step sizes of inner steps as an argument, which can be learnt; mistakes in them are refused.

Optax drops extra arguments on their way to a transformation that takes none, and an array takes any
index. So rates that nobody reads, or more of them than steps, would change nothing and say nothing.
"""

import jax
import jax.numpy as jnp
import optax
from jax.interpreters import partial_eval

from jaxdl.errors import InputError
from jaxdl.types import Grads, Params, PyTree


def scale_by_rates() -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the extra argument `rates`, the last link of an inner optimiser.

    `rates` is a tree prefix of the parameters: one number, one a layer, or one a parameter. Being
    an argument, and not a constant of the transformation, it can be meta-learned (Meta-SGD, Li et
    al. 2017; LSLR of MAML++).

    Raises:
        InputError: from its update, if it is not given `rates`.

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
            raise InputError("scale_by_rates scales by what it is told: give descend rates=")
        scaled = jax.tree.map(
            lambda rate, below: jax.tree.map(lambda leaf: -rate * leaf, below), rates, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def check_rates(
    rates: PyTree, steps: int, tx: optax.GradientTransformation, state: PyTree, params: Params
) -> None:
    """Refuses `rates` that do not fit the steps, or that `tx` does not read. All of it is tracing.

    Args:
        rates: a pytree of arrays `[steps, ...]`.
        tx: takes extra arguments; `state` is its state for these parameters.

    Raises:
        InputError: as said above.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(rates):
        if jnp.shape(leaf)[:1] != (steps,):
            raise InputError(
                f"rates{jax.tree_util.keystr(path)} is {list(jnp.shape(leaf))}, and there are"
                f" {steps} inner steps: give it a leading axis [{steps}], one rate per step"
            )
    if not reads(tx, rates, state, params):
        raise InputError(
            "the inner optimiser does not read rates, so they would change nothing: chain"
            " scale_by_rates() as its last link, or leave them out"
        )


def reads(tx: optax.GradientTransformation, rates: PyTree, state: PyTree, params: Params) -> bool:
    """Whether updates or state of `tx` depend on any leaf of `rates`.

    The program of an update says it, whatever the transformation is made of: a mark on
    `scale_by_rates` would not survive `optax.chain` or `optax.partition`, which are closures, and
    a user's own transformation would not have it.
    """

    def update(rates: PyTree, state: PyTree, params: Params) -> PyTree:
        return tx.update(params, state, params, rates=rates)  # gradients look like parameters

    each = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], jnp.result_type(leaf)), rates
    )
    program = jax.make_jaxpr(update)(each, state, params).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    return any(used[: len(jax.tree.leaves(each))])
