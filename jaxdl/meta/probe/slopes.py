"""The derivatives of an optimiser's updates, measured on six numbers and three given gradients.

No net is needed. The part of a meta-gradient that an inner optimiser is answerable for is the
derivative of its updates by the gradients and the parameters that it was given. Here that is found
by reverse mode, as a meta-gradient finds it, and by finite differences, which do not fail in the
same places. All cases are rows of one program, because compiling is all that this costs.
"""

import contextlib
import functools
from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Float

from jaxdl.meta.probe import cases
from jaxdl.meta.probe.aside import aside
from jaxdl.meta.probe.cases import CASES, OFFSETS, Rows
from jaxdl.types import Array, Params, PyTree, Scalar

QUICKLY = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later ones do not know it
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
EXTRAS = ((), ("rates",), ("value", "grad", "value_fn"))
"""Extra arguments of updates, which some optimisers ask for."""


class Slopes(NamedTuple):
    """For each of `CASES`: the sum of updates, weighted by fixed numbers, and its derivatives.

    `values` are those at `OFFSETS`. `by_params` and `by_grads` are of reverse mode, and `along` is
    what they say of the line on which `values` lie. `by_grads` is 0 if gradients are constants.
    """

    values: Float[np.ndarray, "cases offsets"]
    by_params: Float[np.ndarray, "cases params"]
    by_grads: Float[np.ndarray, "cases grads"]
    along: Float[np.ndarray, " cases"]


class NotReversibleError(Exception):
    """Reverse mode refuses the updates, say a loop that ends when it has found something."""


class _CannotAskError(Exception):
    pass


def slopes(tx: optax.GradientTransformation, *, first_order: bool = False) -> Slopes | None:
    """The derivatives of the updates of `tx`; None if it cannot be asked.

    It cannot if it holds traced numbers, or is made for parameters of certain names. The answer is
    kept: asked again about the same `tx`, nothing is compiled.

    Args:
        first_order: whether gradients count as constants.

    Raises:
        NotReversibleError: if reverse mode refuses the updates, though they can be computed.

    >>> import optax
    >>> found = slopes(optax.sgd(0.1))
    >>> float(abs(found.by_grads).max()) < 0.2  # 0.1 times fixed numbers near 1
    True
    """
    is_kept = isinstance(tx.init, Hashable) and isinstance(tx.update, Hashable)
    ask = _slopes if is_kept else _slopes.__wrapped__
    with contextlib.suppress(_CannotAskError):
        return ask(tx, first_order)
    return None


@functools.lru_cache(maxsize=64)
def _slopes(tx: optax.GradientTransformation, first_order: bool) -> Slopes:
    """An error, and with it a transformation that holds traced numbers, is not kept."""
    rows, line, weights = cases.rows()
    with aside():
        program = _program(optax.with_extra_args_support(tx), weights, rows, first_order)
        if any(isinstance(const, jax.core.Tracer) for const in program.consts):
            raise _CannotAskError
        found = jax.jit(jaxpr_as_fun(program), compiler_options=QUICKLY)(*rows)
        found = [np.asarray(leaf, np.float64) for leaf in found]
    values, *grads = (leaf.reshape(len(CASES), len(OFFSETS), -1) for leaf in found)
    by_params = grads[0][:, 0]
    by_grads = grads[1][:, 0] if grads[1:] else np.zeros((len(CASES), line.grads.size))
    along = by_params @ line.params.ravel() + by_grads @ line.grads.ravel()
    return Slopes(values[:, :, 0], by_params, by_grads, along)


def _program(
    tx: optax.GradientTransformationExtraArgs, weights: np.ndarray, rows: Rows, first_order: bool
) -> ClosedJaxpr:
    """The program that takes values and derivatives of all rows.

    Raises:
        NotReversibleError: if only the values can be computed.
        _CannotAskError: if not even they can.
    """
    by, row = 0 if first_order else (0, 1), jax.tree.map(lambda leaf: leaf[0], rows)
    for names in EXTRAS:
        total = functools.partial(_summed, tx, names, weights)
        try:
            return jax.make_jaxpr(functools.partial(lax.map, _derivatives(total, by)))(rows)
        except Exception as error:  # an optimiser may be anyone's, and raise anything
            if _can_be_computed(total, row):
                raise NotReversibleError(str(error).partition("\n")[0].rstrip(".")) from error
    raise _CannotAskError


def _derivatives(total: Callable[..., Scalar], by: int | tuple[int, int]) -> Callable[..., PyTree]:
    derivatives = jax.value_and_grad(total, argnums=by)
    return lambda row: derivatives(*row)


def _can_be_computed(total: Callable[..., Scalar], row: PyTree) -> bool:
    try:
        jax.eval_shape(total, *row)
    except Exception:  # it wants other arguments, or other parameters
        return False
    return True


def _summed(
    tx: optax.GradientTransformationExtraArgs,
    names: tuple[str, ...],
    weights: np.ndarray,
    params: Array,
    grads: Array,
    counted: Array,
) -> Scalar:
    """The weighted sum of the updates at counted steps, with the extra arguments of these names."""

    def step(carry: PyTree, inputs: tuple[Array, Array]) -> tuple[PyTree, Scalar]:
        params, state = carry
        grad, counts = {"kernel": inputs[0]}, inputs[1]
        start = params

        def value_fn(at: Params) -> Scalar:
            moved = optax.tree.sub(at, start)
            return 1 + optax.tree.vdot(moved, grad) + optax.tree.norm(moved, squared=True) / 2

        extras = {"value": value_fn(params), "grad": grad, "value_fn": value_fn, "rates": 0.05}
        extras = {name: extras[name] for name in names}
        updates, state = tx.update(grad, state, params, **extras)
        summed = counts * jnp.sum(updates["kernel"] * weights)
        return (optax.apply_updates(params, updates), state), summed

    tree = {"kernel": params}
    return jnp.sum(lax.scan(step, (tree, tx.init(tree)), (grads, counted))[1])
