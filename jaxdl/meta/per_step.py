"""Parameters that differ from one inner step to the next, as the norms and rates of MAML++ do.

The parameters of a net are divided by name into those that are adapted in a task, and those that
have a value for each inner step. In both parts, None stands in the place of the arrays of the other
one.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.grads import Objective
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.inner import descend
from jaxdl.meta.rates import scale_by_rates
from jaxdl.types import Array, Batch, Key, Metrics, Params, PyTree, Scalar

Select = Callable[[str], bool]
"""Whether the parameter of a name, such as `BatchNorm_0/bias`, has a value for each inner step."""

NORM = re.compile(r"(norm|(^|/)bn)_?\d*/[^/]*$", re.IGNORECASE)


class PerStep(NamedTuple):
    """An initialisation, which is adapted; the rest of a net per step, which is not; and rates.

    The arrays of `each` have a leading axis `[steps]`. `rates` has `[steps]` numbers for each array
    of `start`, or is empty if rates are not learned. For 0 steps the axis is 1.
    """

    start: Params
    each: Params
    rates: PyTree


def is_norm(name: str) -> bool:
    """Whether a parameter belongs to a norm, by the name of its layer.

    Flax names its norms `BatchNorm_0`, `LayerNorm_1` ... A layer of your own is found if its name
    ends in "norm", or is "bn", with or without a number.

    >>> names = ["BatchNorm_0/bias", "block/bn1/scale", "PreNorm_0/Dense_0/bias"]
    >>> [is_norm(name) for name in names]
    [True, True, False]
    """
    return NORM.search(name) is not None


def divide(params: Params, select: Select | None) -> tuple[Params, Params]:
    """The parameters that are adapted, and those that `select` chooses. None chooses nothing.

    >>> divide({"BatchNorm_0": {"bias": 2.0}, "Dense_0": {"kernel": 1.0}}, is_norm)[1]
    {'BatchNorm_0': {'bias': 2.0}, 'Dense_0': {'kernel': None}}

    Raises:
        InputError: if all are chosen.
    """

    def part(chosen: bool) -> Params:
        def kept(path: tuple[Any, ...], leaf: PyTree) -> PyTree:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return leaf if (select is not None and select(name)) == chosen else None

        return jax.tree_util.tree_map_with_path(kept, params)

    adapted, chosen = part(False), part(True)
    if jax.tree.leaves(chosen) and not jax.tree.leaves(adapted):
        raise InputError(
            "`per_step` chooses all parameters of the net, so none is left to adapt. Choose fewer,"
            " or give None"
        )
    return adapted, chosen


def join(adapted: Params, chosen: Params) -> Params:
    """The parameters that `divide` divided."""
    return jax.tree.map(
        lambda one, other: other if one is None else one,
        adapted,
        chosen,
        is_leaf=lambda leaf: leaf is None,
    )


def for_steps(values: PyTree, steps: int) -> PyTree:
    """Values `[trained, ...]` for another number of steps: the first of them, or the last again.

    >>> values = jnp.array([3, 5])
    >>> for_steps(values, 1).tolist(), for_steps(values, 4).tolist()
    ([3], [3, 5, 5, 5])
    """

    def of_leaf(leaf: Array) -> Array:
        more = steps - len(leaf)
        if more <= 0:
            return leaf[:steps]
        return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (more, *leaf.shape[1:]))])

    return jax.tree.map(of_leaf, values)


def descend_per_step(
    value: Objective,
    params: PerStep,
    support: Batch,
    *,
    steps: int,
    key: Key | None,
    estimator: Estimator,
    visit: Callable[[Params], PyTree] | None = None,
) -> tuple[Params, PyTree]:
    """Gradient descent by the rates of each step on a net that has other norms at each step.

    More steps than in training use the rates and norms of the last one again.

    Args:
        value: the loss of the whole net.
        visit: called with the whole net after each step. It has the norms of this step.

    Returns:
        The whole net after the last step, and what `visit` gave, with a leading axis `[steps]`.
    """

    def loss(
        start: Params, key: Key | None, support: Batch, each: Params
    ) -> tuple[Scalar, Metrics]:
        return value(join(start, each), key, support)

    adapted, (_, visited) = descend(
        loss,
        params.start,
        scale_by_rates(),
        support,
        steps=steps,
        key=key,
        estimator=estimator,
        rates=for_steps(params.rates, steps),
        each=(for_steps(params.each, steps),),
        visit=None if visit is None else lambda start, each: visit(join(start, each)),
    )
    last = jax.tree.map(lambda leaf: leaf[-1], for_steps(params.each, max(1, steps)))
    return join(adapted, last), visited
