"""Sine-wave regression, the toy problem of MAML (https://arxiv.org/abs/1703.03400, section 5.1)."""

import math

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Episode, Key, Sampler

AMPLITUDES = (0.1, 5.0)
PHASES = (0.0, math.pi)
INPUTS = (-5.0, 5.0)


def sinusoid_task(key: Key) -> tuple[Array, Array]:
    """Amplitude and phase (two scalars) of the task that `sinusoid` draws from the same key.

    They are uniform in `AMPLITUDES` and `PHASES`. The phase is in radians.
    """
    (low_amplitude, high_amplitude), (low_phase, high_phase) = AMPLITUDES, PHASES
    amplitude, phase = jax.random.uniform(
        key,
        (2,),
        minval=jnp.array([low_amplitude, low_phase]),
        maxval=jnp.array([high_amplitude, high_phase]),
    )
    return amplitude, phase


def sine(task: tuple[Array, Array], x: Array) -> Array:
    """The true curve `amplitude * sin(x - phase)` at `x` of any shape."""
    amplitude, phase = task
    return amplitude * jnp.sin(x - phase)


def sinusoid(*, shots: int, queries: int) -> Sampler:
    """Sampler of one sine wave: `shots` support points and `queries` query points, no noise.

    x is uniform in `INPUTS`. Shapes: x and y are `[shots, 1]` and `[queries, 1]`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> from jaxdl.data.sets.sinusoid import sinusoid_task
    >>> key = jax.random.key(0)
    >>> support, query = jax.jit(jaxdl.sinusoid(shots=5, queries=10))(key)
    >>> support.x.shape, query.y.shape
    ((5, 1), (10, 1))
    >>> amplitude, phase = sinusoid_task(key)
    >>> bool(jnp.allclose(query.y, amplitude * jnp.sin(query.x - phase), atol=1e-5))
    True

    Raises:
        InputError: if `shots` or `queries` is below one.
    """
    if shots < 1 or queries < 1:
        raise InputError(
            f"shots={shots} and queries={queries} must both be at least 1. Choose more"
        )

    def draw(key: Key) -> Episode:
        task = sinusoid_task(key)
        # One call for all inputs, because threefry takes a fifth of a step of this small net.
        low, high = INPUTS
        x = jax.random.uniform(
            jax.random.fold_in(key, 1), (shots + queries, 1), minval=low, maxval=high
        )
        y = sine(task, x)
        return Episode(Batch(x[:shots], y[:shots]), Batch(x[shots:], y[shots:]))

    return draw
