"""Multinomial logistic regression with an L2 penalty, solved by Newton's method inside jit.

Each Newton system is solved by conjugate gradients, which need only products with the Hessian. So
the cost per step is that of some products with the features, for any number of features. The
numbers of steps are fixed, and `vmap` solves many tasks at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxdl.losses import counted
from jaxdl.meta.vectors import full_product
from jaxdl.types import Array, Scalar, Weight

HALVINGS = 8
"""Step lengths of the line search: 1, 1/2, 1/4 ..."""


class Linear(NamedTuple):
    """A linear classifier: kernel `[width, ways]`, and bias `[ways]`."""

    kernel: Float[Array, "width ways"]
    bias: Float[Array, " ways"]


def logistic_regression(
    x: Float[Array, "n width"],
    y: Int[Array, " n"],
    weight: Weight | None = None,
    *,
    ways: int,
    l2: float = 1.0,
    steps: int = 10,
    products: int = 50,
) -> Linear:
    """The minimum of the weighted sum of cross-entropies plus `l2 / 2` times the squared kernel.

    The bias has no penalty. For three classes or more this is `LogisticRegression(C=1 / l2)` of
    scikit-learn, whose objective for two classes has half of the penalty. It is solved in float32
    at least.

    A class without an example that counts has the bias -inf, so its probability is 0. An example
    of weight 0 counts for nothing.

    Args:
        l2: positive, so that the minimum exists for separable classes, too.
        steps: Newton steps. From there on, a problem with vectors of length 1 changes no more.
        products: conjugate-gradient iterations per step. A problem of n examples needs at most
            `n * (ways - 1) + ways`. Few are enough where `l2` is not small beside `n * |x|^2`.

    >>> import jax, jax.numpy as jnp
    >>> solve = jax.jit(logistic_regression, static_argnames="ways")
    >>> x, y = jnp.array([[-1.0], [1.0], [5.0]]), jnp.array([0, 1, 1])
    >>> found = solve(x, y, jnp.array([1.0, 1.0, 0.0]), ways=3)
    >>> [[f"{w:.3f}" for w in row] for row in found.kernel]  # w = 2 sigmoid(-2 w)
    [['-0.521', '0.521', '0.000']]
    >>> found.bias.round(3).tolist()[2]
    -inf
    """
    x = x.astype(jnp.promote_types(x.dtype, "float32"))
    (x,), counts = counted(weight, x), jnp.ones(len(y)) if weight is None else weight
    features = jnp.concatenate([x, jnp.ones((len(y), 1), x.dtype)], axis=1)
    counts, target = counts[:, None], jax.nn.one_hot(y, ways)
    present = jnp.sum(counts * target, axis=0, keepdims=True) > 0
    is_bias = jnp.arange(features.shape[1])[:, None] == x.shape[1]
    penalty = jnp.where(is_bias, 0, l2)

    def centred(v: Float[Array, "rows ways"]) -> Float[Array, "rows ways"]:
        """Without the part that adds one number to all biases, because it changes nothing."""
        shift = jnp.sum(v, axis=1, keepdims=True) / jnp.maximum(present.sum(), 1)
        return v - jnp.where(is_bias & present, shift, 0)

    def logits(at: Float[Array, "rows ways"]) -> Float[Array, "n ways"]:
        return jnp.where(present, full_product(features, at), -jnp.inf)

    def value(at: Float[Array, "rows ways"]) -> Scalar:
        z = logits(at)
        losses = jax.nn.logsumexp(z, axis=1) - jnp.sum(jnp.where(target > 0, z, 0), axis=1)
        fit = jnp.where(counts[:, 0] > 0, counts[:, 0] * losses, 0).sum()
        return fit + jnp.sum(penalty * jnp.square(at)) / 2

    def newton(at: Float[Array, "rows ways"], _: None) -> tuple[Array, None]:
        p = jnp.where(counts > 0, jax.nn.softmax(logits(at)), 0)
        slope = centred(full_product(features.T, counts * (p - target)) + penalty * at)

        def hessian(v: Float[Array, "rows ways"]) -> Float[Array, "rows ways"]:
            z = full_product(features, v)
            dp = p * (z - jnp.sum(p * z, axis=1, keepdims=True))
            return centred(full_product(features.T, counts * dp) + penalty * v)

        direction = -_conjugate_gradients(hessian, slope, products)
        # Armijo's rule, with room for the rounding of the value.
        lengths = 0.5 ** jnp.arange(HALVINGS)
        now, change = value(at), jnp.vdot(slope, direction)
        values = jax.vmap(lambda length: value(at + length * direction))(lengths)
        slack = 16 * np.finfo(at.dtype).eps * jnp.abs(now)
        good = values <= now + 1e-4 * lengths * change + slack
        length = jnp.where(good.any(), lengths[jnp.argmax(good)], 0)
        return at + length * direction, None

    found, _ = lax.scan(newton, jnp.zeros((features.shape[1], ways), x.dtype), length=steps)
    return Linear(found[:-1], jnp.where(present[0], found[-1], -jnp.inf))


def _conjugate_gradients(
    product: Callable[[Array], Array], b: Float[Array, "rows ways"], steps: int
) -> Float[Array, "rows ways"]:
    """x with `product(x) = b`, for a product that is symmetric and not negative."""

    start = jnp.vdot(b, b)
    # Below that, the rest is rounding, and its direction has no meaning.
    least = jnp.square(2 * np.finfo(b.dtype).eps) * start

    def step(carry: tuple[Array, Array, Array, Scalar], _: None) -> tuple[Any, None]:
        x, rest, direction, size = carry
        image = product(direction)
        curvature = jnp.vdot(direction, image)
        going = (size > least) & (curvature > 0)
        length = jnp.where(going, size / jnp.where(going, curvature, 1), 0)
        x, rest = x + length * direction, rest - length * image
        new = jnp.vdot(rest, rest)
        ratio = jnp.where(going, new / jnp.where(going, size, 1), 0)
        return (x, rest, jnp.where(going, rest + ratio * direction, direction), new), None

    (x, *_), _ = lax.scan(step, (jnp.zeros_like(b), b, b, start), length=steps)
    return x
