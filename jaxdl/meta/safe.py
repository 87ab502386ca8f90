"""Adam, RMSProp, RAdam and gradient clipping whose every derivative is finite.

A meta-gradient passes through the update rule itself. The update rules of Optax are finite at a
gradient of exactly zero, but many of their derivatives are not: the derivative of a square root at
0 is infinite, and infinite times 0 is NaN. A `where` does not help, because reverse mode multiplies
the derivative of the branch that is not taken by 0. So here each root has a positive argument.
docs/inner-optimisers.md says what each transformation of Optax does.
"""

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.types import Grads, Params, PyTree

EPS_ROOT = 1e-8
"""Under the root of the second moment. Gradients far below its root, 1e-4, are scaled linearly."""

RECTIFIED_FROM = 5.0
"""RAdam adapts where the moving average is as long as so many steps; this is Optax's default."""


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    eps_root: float = EPS_ROOT,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a positive number under its square root (Kingma, Ba 2015, arXiv:1412.6980).

    The first step is almost `learning_rate * sign(gradient)`. So one inner step of Adam has almost
    no second order: it costs as MAML does and gives what FOMAML gives.

    Where a whole gradient is zero, the meta-gradient is right and large: up to `1 / sqrt(eps_root)`
    per inner step. A larger `eps_root` makes it smaller, and Adam closer to momentum.

    Args:
        eps_root: above 0.

    Raises:
        InputError: if `eps_root` is not above 0.

    >>> import jax, jax.numpy as jnp, jaxdl, optax
    >>> from jaxdl.meta import inner
    >>> loss = lambda w, key: (jnp.sum(w**2), {})
    >>> def final(w, tx):
    ...     return jnp.sum(jaxdl.descend(loss, w, tx, steps=2)[0])
    >>> w = jnp.array([1.0, 0.0])  # the second gradient is zero
    >>> grads = [jax.grad(final)(w, tx) for tx in (inner.adam(0.1), optax.adam(0.1))]
    >>> [bool(jnp.isfinite(each).all()) for each in grads]
    [True, False]
    """
    _check_positive("eps_root", eps_root)
    return optax.adam(learning_rate, b1, b2, eps, eps_root)


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: float = 0.9,
    eps: float = 1e-8,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """RMSProp with `eps` under the square root, where alone it helps (Hinton 2012, lecture 6e).

    Args:
        eps: above 0.

    Raises:
        InputError: if `eps` is not above 0.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> from jaxdl.meta import inner
    >>> loss = lambda w, key: (jnp.sum(w**2), {})
    >>> def final(w):
    ...     return jnp.sum(jaxdl.descend(loss, w, inner.rmsprop(0.1, eps=1e-2), steps=1)[0])
    >>> round(float(jax.grad(final)(jnp.zeros(1))[0]), 6)  # 1 - 0.1 * 2 / sqrt(1e-2)
    -1.0
    """
    _check_positive("eps", eps)
    return optax.rmsprop(
        learning_rate, decay, eps, eps_in_sqrt=True, momentum=momentum, nesterov=nesterov
    )


def radam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    eps_root: float = EPS_ROOT,
) -> optax.GradientTransformationExtraArgs:
    """Rectified Adam (Liu et al. 2020, arXiv:1908.03265), whose meta-gradient is finite.

    It is momentum for the first steps (5 with the defaults), and then Adam with a factor that
    starts near 0 and rises to 1. That of Optax takes the root of a negative number in the branch
    that it does not use, and its meta-gradient is NaN from the third inner step on.

    Args:
        eps_root: above 0.

    Raises:
        InputError: if `eps_root` is not above 0.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> from jaxdl.meta import inner
    >>> loss = lambda w, key: (w**2 / 2, {})
    >>> def final(w):
    ...     return jaxdl.descend(loss, w, inner.radam(0.5, b1=0.0), steps=3)[0]
    >>> float(jax.grad(final)(1.0))  # three steps of gradient descent: 0.5 ** 3
    0.125
    """
    _check_positive("eps_root", eps_root)
    adaptive = optax.scale_by_adam(b1, b2, eps, eps_root)
    longest = 2 / (1 - b2) - 1

    def update(
        updates: Grads, state: optax.ScaleByAdamState, params: Params | None = None
    ) -> tuple[Grads, PyTree]:
        adapted, state = adaptive.update(updates, state, params)
        momentum = optax.tree.bias_correction(state.mu, b1, state.count)
        decayed = b2**state.count
        length = longest - 2 * state.count * decayed / (1 - decayed)
        rectified = length >= RECTIFIED_FROM
        squared = (length - 4) * (length - 2) * longest
        squared = squared / ((longest - 4) * (longest - 2) * length)
        factor = jnp.sqrt(jnp.where(rectified, squared, 1))  # of no negative number, used or not

        def chosen(adapted: Params, momentum: Params) -> Params:
            return jnp.where(rectified, factor.astype(adapted.dtype) * adapted, momentum)

        return jax.tree.map(chosen, adapted, momentum), state

    return optax.chain(
        optax.GradientTransformation(adaptive.init, update),
        optax.scale_by_learning_rate(learning_rate),
    )


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales a gradient that is longer than `max_norm` to this length, and no other.

    The norm is of all leaves together. That of Optax has NaN derivatives where the gradient is
    zero, be `max_norm` so large that it never acts.

    Args:
        max_norm: above 0.

    Raises:
        InputError: if `max_norm` is not above 0.

    >>> import jax, jax.numpy as jnp, optax
    >>> from jaxdl.meta import inner
    >>> clip = lambda grads: inner.clip_by_global_norm(1.0).update(grads, optax.EmptyState())[0]
    >>> jax.jacobian(clip)(jnp.zeros(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> [round(float(x), 6) for x in clip(jnp.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    _check_positive("max_norm", max_norm)

    def update(
        updates: Grads, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Grads, PyTree]:
        del params
        # Squares of 16-bit floats overflow.
        wide = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, "float32")), updates
        )
        squared = optax.tree.norm(wide, squared=True)
        clips = squared > max_norm**2
        norm = jnp.sqrt(jnp.where(clips, squared, 1))  # of no zero, used or not
        scale = jnp.where(clips, max_norm / norm, 1)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _check_positive(name: str, value: PyTree) -> None:
    """Of a number; one that is traced has no value yet."""
    if not isinstance(value, jax.core.Tracer) and not value > 0:
        raise InputError(
            f"`{name}={value}`: the meta-gradient is then not finite where a gradient is zero."
            " Give a number above 0"
        )
