"""Regression in one dimension: curves drawn from Gaussian processes, and sawtooth waves.

The tasks of the neural processes: RBF and Matérn as in TNP (Nguyen, Grover 2022, arXiv:2207.04179),
weakly periodic and sawtooth as in ConvCNP (Gordon et al. 2020, arXiv:1910.13556), here with a
random lengthscale. `gp_posterior` is the exact answer, in float64.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from jaxdl.data.ranges import Range, Span, check_range
from jaxdl.errors import InputError
from jaxdl.losses import Normal
from jaxdl.optim.lapack import cholesky
from jaxdl.types import Array, Batch, Count, Episode, Key, Sampler, Scalar

INPUTS = (-2.0, 2.0)
LENGTHS = (0.1, 0.6)
SCALES = (0.1, 1.0)
NOISE = 0.02
"""The standard deviation of what is added to each y."""
HARMONICS = (10, 20)
"""The fewest and the most sine waves that add up to a sawtooth."""


def rbf(d: Any, length: Any, xp: Any) -> Any:
    """`exp(-d^2 / (2 length^2))`, with `xp` NumPy or jax.numpy."""
    return xp.exp(-((d / length) ** 2) / 2)


def matern(d: Any, length: Any, xp: Any) -> Any:
    """Matérn's kernel of smoothness 5/2."""
    r = math.sqrt(5) * xp.abs(d) / length
    return (1 + r + r**2 / 3) * xp.exp(-r)


def weakly_periodic(d: Any, length: Any, xp: Any) -> Any:
    """A periodic kernel, whose period is the lengthscale, times an RBF of lengthscale 2."""
    return xp.exp(-2 * xp.sin(math.pi * d / length) ** 2 - d**2 / 8)


KERNELS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "rbf": rbf,
    "matern": matern,
    "weakly_periodic": weakly_periodic,
}
"""Kernels of variance 1: `(difference of inputs, lengthscale, numpy) -> covariance`."""
KINDS = (*KERNELS, "sawtooth")
CURVES = (*KINDS, "mixture")
"""What `gp` can draw."""
JITTER = {"rbf": 1.0, "matern": 1.0, "weakly_periodic": 4.0}
"""In rounding errors of float32 per point, eight times of what 5,000 tasks need. A period passes up
to 40 times between the ends of the inputs, so the sine multiplies the rounding of an input."""


class Curve(NamedTuple):
    """What is random in a task: the index of its kind in `KINDS`, its lengthscale and its scale."""

    kind: Int[Array, "*tasks"]
    length: Float[Array, "*tasks"]
    scale: Float[Array, "*tasks"]


def gp_task(kernel: str, key: Key) -> Curve:
    """The task that `gp(kernel)` draws from the same key. The lengthscale of a sawtooth is its
    period, and its scale the height of a tooth."""
    low, high = jnp.array([LENGTHS, SCALES, (0.0, len(KINDS))]).T
    length, scale, kind = jax.random.uniform(key, (3,), minval=low, maxval=high)
    if kernel != "mixture":
        return Curve(jnp.int32(KINDS.index(kernel)), length, scale)
    return Curve(jnp.minimum(kind.astype("int32"), len(KINDS) - 1), length, scale)


def jitter(kind: str, points: int) -> float:
    """What the diagonal of a covariance of variance 1 needs, so that float32 can factor it."""
    return JITTER[kind] * points * float(np.finfo(np.float32).eps)


def gp(
    kernel: str = "rbf",
    *,
    shots: Range = (3, 46),
    queries: Range = (3, 46),
    points: int = 49,
    noise: float = NOISE,
) -> Sampler:
    """Sampler of one curve: support points and query points of it, drawn on the device.

    The defaults are the benchmark of TNP. x is uniform in `INPUTS`, the lengthscale in `LENGTHS`
    and the scale in `SCALES`. The number of queries is drawn after that of support points. Shapes:
    x and y are `[shots, 1]` and `[queries, 1]`. Where a number is a range, they have the most of
    it, and rows of zeros with weight 0 follow the others.

    A mixture draws each kind of curve with equal probability.

    Args:
        kernel: one of `CURVES`.
        points: the most support and query points together.
        noise: standard deviation of the noise in y.

    >>> import jax, jaxdl
    >>> support, query = jax.jit(jaxdl.gp("matern"))(jax.random.key(0))
    >>> support.x.shape, query.y.shape
    ((46, 1), (46, 1))
    >>> 3 <= int(support.weight.sum()) <= 46
    True

    Raises:
        InputError: for another kernel, or numbers of points that cannot be drawn.
    """
    if kernel not in CURVES:
        raise InputError(f"`kernel={kernel}`: choose among {' '.join(CURVES)}")
    given, asked = check_range("shots", shots), check_range("queries", queries)
    if given.most + asked.fewest > points or not noise >= 0:
        raise InputError(
            f"shots={given}, queries={asked}, points={points} and noise={noise} cannot be drawn."
            " Give more points than the most shots and the fewest queries together, and a noise of"
            " at least 0"
        )
    total = min(points, given.most + asked.most)
    lower = given.fewest != given.most, asked.fewest != asked.most

    def draw(key: Key) -> Episode:
        x_key, y_key = jax.random.split(jax.random.fold_in(key, 1))
        # One call for all that is uniform, because a call of threefry is slow to compile.
        uniform = jax.random.uniform(x_key, (2 + total,))
        n = _count(uniform[0], given.fewest, given.most)
        m = _count(uniform[1], asked.fewest, jnp.minimum(asked.most, points - n))
        low, high = INPUTS
        x = low + (high - low) * uniform[2:]
        y = _values(kernel, gp_task(kernel, key), x, noise, y_key)
        # The queries are the last points, and the support set the first ones.
        return Episode(
            _batch(x, y, n, given, lower[0]), _batch(x[::-1], y[::-1], m, asked, lower[1])
        )

    return draw


def _count(uniform: Scalar, fewest: int, most: Array | int) -> Count:
    span = most - fewest + 1
    return fewest + jnp.minimum((uniform * span).astype("int32"), span - 1)


def _batch(
    x: Float[Array, " n"], y: Float[Array, " n"], count: Array, span: Span, masked: bool
) -> Batch:
    x, y = x[: span.most, None], y[: span.most, None]
    if not masked:
        return Batch(x, y)
    counts: Bool[Array, " n"] = jnp.arange(span.most) < count
    x, y = (jnp.where(counts[:, None], leaf, 0) for leaf in (x, y))
    return Batch(x, y, counts.astype(x.dtype))


def _values(
    kernel: str, curve: Curve, x: Float[Array, " n"], noise: float, key: Key
) -> Float[Array, " n"]:
    normal, d = jax.random.normal(key, (2, len(x))), x[:, None] - x[None, :]

    def of_kernel(kind: str) -> Float[Array, "n n"]:
        return KERNELS[kind](d, curve.length, jnp) + jitter(kind, len(x)) * jnp.eye(len(x))

    kinds = list(KERNELS) if kernel == "mixture" else [kernel]
    f = jnp.zeros(len(x))
    if kinds != ["sawtooth"]:
        # One factorisation of the chosen kernel. A switch would factor them all under vmap.
        all_of = jnp.stack([of_kernel(kind) for kind in kinds])
        at = jnp.minimum(curve.kind, len(kinds) - 1) if len(kinds) > 1 else 0
        f = curve.scale * (cholesky(all_of[at]) @ normal[0])
    if kernel in ("sawtooth", "mixture"):
        is_sawtooth = curve.kind == KINDS.index("sawtooth")
        f = jnp.where(is_sawtooth, sawtooth(jax.random.fold_in(key, 1), curve, x), f)
    return f + noise * normal[1]


def sawtooth(key: Key, curve: Curve, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """A sum of 10 to 20 sine waves that approximates a sawtooth from 0 to the scale of the curve.

    The period is its lengthscale. The number of waves and the phase are random.
    """
    fewest, most = HARMONICS
    phase, uniform = jax.random.uniform(key, (2,))
    count, turns = _count(uniform, fewest, most), x / curve.length + phase
    k = jnp.arange(1, most + 1)[None]
    waves = (-1.0) ** k * jnp.sin(2 * math.pi * k * (turns % 1)[:, None]) / k
    return curve.scale * (0.5 - jnp.sum(jnp.where(k <= count, waves, 0), axis=1) / math.pi)


def gp_posterior(
    kernel: str,
    length: Any,
    scale: Any,
    support: Batch,
    x: Any,
    *,
    noise: float = NOISE,
    points: int = 49,
) -> Normal:
    """The exact distribution of y at `x`, given the support set and the true hyperparameters.

    NumPy, in float64. All arguments may have the same leading axes. The variance of y contains the
    noise, and the jitter of `gp` for so many `points`.

    Args:
        kernel: one of `KERNELS`.
        length, scale: the lengthscale and the scale, `[...]`.
        support: x and y `[..., n, 1]`; points of weight 0 are as if they were left out.
        x: inputs `[..., m, 1]`.

    >>> import jax, jaxdl
    >>> from jaxdl.data.sets.gp import gp_posterior, gp_task
    >>> key = jax.random.key(0)
    >>> support, query = jax.jit(jaxdl.gp("rbf", shots=20, queries=5))(key)
    >>> _, length, scale = gp_task("rbf", key)
    >>> y = gp_posterior("rbf", length, scale, support, query.x, points=25)
    >>> y.mean.shape, str(y.scale.dtype), bool((abs(y.mean - query.y) < 4 * y.scale).all())
    ((5, 1), 'float64', True)

    Raises:
        InputError: if the kernel has no posterior in closed form.
    """
    if kernel not in KERNELS:
        raise InputError(
            f"`kernel={kernel}` has no exact posterior: choose among {' '.join(KERNELS)}"
        )
    given, asked, y = (np.asarray(leaf, np.float64) for leaf in (support.x, x, support.y))
    length, scale = (np.asarray(each, np.float64)[..., None, None] for each in (length, scale))
    counts = np.ones(given.shape[:-1]) if support.weight is None else np.asarray(support.weight) > 0

    def covariance(one: Float64[np.ndarray, "..."], two: Float64[np.ndarray, "..."]) -> Any:
        return scale**2 * KERNELS[kernel](one - two.swapaxes(-1, -2), length, np)

    extra = noise**2 + scale**2 * jitter(kernel, points)
    both = counts[..., :, None] * counts[..., None, :]
    eye = np.eye(given.shape[-2])
    # A point that does not count has a variance of 1 and no covariance: it changes nothing.
    inner = np.where(both, covariance(given, given), 0) + eye * np.where(
        counts[..., None], extra, 1
    )
    cross = counts[..., :, None] * covariance(given, asked)
    solved = np.linalg.solve(inner, np.concatenate([cross, np.where(counts[..., None], y, 0)], -1))
    mean = cross.swapaxes(-1, -2) @ solved[..., -1:]
    explained = np.sum(cross * solved[..., :-1], axis=-2)[..., None]
    return Normal(mean, np.sqrt(scale**2 + extra - explained))
