"""Ridge regression of weighted rows in closed form, and the linear head that it gives.

Learners with a ridge head (`ridge_learner`) differentiate through the solution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from jaxdl.losses import counted
from jaxdl.optim.lapack import solve_positive
from jaxdl.types import Array, Batch, Scalar, Weight


def ridge(
    x: Float[Array, "n width"],
    y: Float[Array, " n *outputs"],
    strength: Scalar | float,
    weight: Weight | None = None,
) -> Float[Array, " width *outputs"]:
    """The kernel `w` that minimises `sum(weight * (x @ w - y) ** 2) + strength * sum(w ** 2)`.

    It solves the smaller of two systems by Cholesky: `[width, width]`, or by the Woodbury identity
    `[n, n]`, if there are fewer rows than columns. The normal equations have finite derivatives for
    each `x`, and `jnp.linalg.lstsq` has not: those are NaN for equal singular values.

    A row of weight 0 counts for nothing, even if it is NaN. Derivatives by such a weight are 0.

    Args:
        strength: above 0.

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([[1.0], [1.0]]), jnp.array([[3.0], [6.0]])
    >>> ridge(x, y, strength=2.0).tolist()  # (3 + 6) / (1 + 1 + 2)
    [[2.25]]
    >>> ridge(x, y, strength=3.0, weight=jnp.array([1.0, 0.0])).tolist()  # 3 / (1 + 3)
    [[0.75]]
    """
    rows, width = x.shape
    outputs, y = y.shape[1:], y.reshape(rows, -1)
    if weight is not None:
        x, y = counted(weight, x, y)
        positive = weight > 0  # the root has no finite derivative at 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, weight, 1)), 0)[:, None]
        x, y = root * x, root * y
    if rows < width:
        kernel = x.T @ _solve(x @ x.T, strength, y)
    else:
        kernel = _solve(x.T @ x, strength, x.T @ y)
    return kernel.reshape(width, *outputs)


def _solve(
    gram: Float[Array, "m m"], strength: Scalar | float, right: Float[Array, "m k"]
) -> Float[Array, "m k"]:
    return solve_positive(gram + strength * jnp.eye(len(gram)), right)


class RidgeHead(NamedTuple):
    """A linear head without bias, and which outputs the support set has taught.

    `kernel` is `[width, ways]`, and `present` tells the classes of the support set. In regression,
    the axes of one target take the place of `ways`, and all are present.
    """

    kernel: Float[Array, " width *outputs"]
    present: Bool[Array, " *outputs"]


def ridge_head(
    features: Float[Array, "n width"], support: Batch, strength: Scalar | float, *, ways: int
) -> RidgeHead:
    """The ridge regression of the targets on the features of the support set.

    The targets of integer labels are one-hot vectors. Floating-point targets `[n, ...]` stay as
    they are: this is regression.
    """
    y, weight = support.y, support.weight
    if jnp.issubdtype(y.dtype, jnp.integer):
        y = jax.nn.one_hot(y, ways, dtype=features.dtype)
        present = (y if weight is None else y * weight[:, None]).sum(axis=0) > 0
    else:
        present = jnp.ones(y.shape[1:], bool)
    return RidgeHead(ridge(features, y, strength, weight), present)


def ridge_scores(
    head: RidgeHead, features: Float[Array, "n width"], scale: Scalar, offset: Scalar | float = 0.0
) -> Shaped[Array, " n *outputs"]:
    """The scores `scale * features @ kernel + offset`, and -inf for a class that is not present."""
    scores = scale * jnp.tensordot(features, head.kernel, axes=1) + offset
    return jnp.where(head.present[None], scores, -jnp.inf)
