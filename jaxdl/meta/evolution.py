"""Evolution strategies, ES: gradients without derivatives (Salimans et al. 2017, arXiv:1703.03864).

Parameters are moved by Gaussian noise, there and back. The two values of the objective tell the
slope along the noise. The mean of noise times slope over many such pairs estimates the gradient of
the smoothed objective: its mean over the noise. So the objective may have steps and kinks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.grads import over_tasks
from jaxdl.meta.base import Ask, QueryGrad, after_adaptation, with_support
from jaxdl.meta.estimators import Estimator, InnerGrad, InnerLoss
from jaxdl.types import (
    AdaptFn,
    Array,
    Count,
    Episode,
    GradFn,
    Grads,
    Key,
    LossFn,
    Metrics,
    Params,
    PredictFn,
    PyTree,
    Scalar,
)


def es_grad(
    value: Callable[[Params, Key], tuple[Scalar, PyTree]],
    params: Params,
    key: Key,
    *,
    population: int,
    sigma: float,
    chunk: int | None = None,
) -> tuple[Grads, PyTree]:
    """The antithetic estimate of the gradient of `value(params, key) -> (scalar, metrics)`.

    It is the mean of `noise * (value(params + sigma * noise) - value(params - sigma * noise)) / (2
    * sigma)` over pairs. Both values of a pair get the same key, so that their own random numbers
    cancel. Metrics are means over all moved parameters, too: they belong to the smoothed objective.

    The paper ranks the values first, which bounds outliers. Here they count as they are, so that
    the mean of the estimate is the gradient of the smoothed objective.

    Args:
        population: pairs. The error falls with the root of their number, and grows with that of the
            number of parameters.
        sigma: standard deviation of the noise.
        chunk: pairs that are computed together, a divisor of `population`. Memory is that of a
            chunk. None takes all.

    Raises:
        InputError: if one of them is not above 0, or `chunk` does not divide `population`.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> def steps(w, key):  # a staircase, whose derivative is 0
    ...     return jnp.floor(w), {}
    >>> grad, _ = jaxdl.es_grad(
    ...     steps, jnp.float32(3), jax.random.key(0), population=20_000, sigma=2.0
    ... )
    >>> f"{grad:.1f}"
    '1.0'
    """
    check_population(population, sigma, chunk)
    params = jax.tree.map(jnp.asarray, params)

    def of_pair(key: Key, step: Count, params: Params, pair: Count) -> tuple[Grads, PyTree]:
        del step, pair  # the key is the pair's own
        noise_key, value_key = jax.random.split(key)
        noise = standard_normal(noise_key, params)

        def moved(by: Scalar) -> tuple[Array, PyTree]:
            at = jax.tree.map(lambda p, e: (p + by * e).astype(p.dtype), params, noise)
            return value(at, value_key)

        values, metrics = jax.vmap(moved)(jnp.asarray([sigma, -sigma]))
        if jnp.shape(values) != (2,):
            raise InputError(
                f"the objective returned an array {list(jnp.shape(values)[1:])}. Return a number"
            )
        slope = (values[0] - values[1]) / (2 * sigma)
        grads = jax.tree.map(lambda e: (slope * e).astype(e.dtype), noise)
        return grads, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), metrics)

    # A pair to `over_tasks` is a task, whose gradient has no loss.
    return over_tasks(of_pair, chunk=chunk)(key, jnp.int32(0), params, jnp.arange(population))


def check_population(population: int, sigma: float, chunk: int | None) -> None:
    """Validates the arguments of `es_grad`.

    Raises:
        InputError: if one is not above 0, or `chunk` does not divide `population`.
    """
    if population < 1 or population % 1:
        raise InputError(f"`population={population}`: choose 1 or more pairs, a whole number")
    if not sigma > 0:
        raise InputError(f"`sigma={sigma}`: choose a standard deviation above 0")
    if chunk is not None and (chunk < 1 or population % chunk):
        raise InputError(f"`chunk={chunk}` does not divide {population} pairs; choose a divisor")


def standard_normal(key: Key, params: Params) -> Params:
    """Standard normal noise of the structure, shapes and dtypes of `params`."""
    leaves, structure = jax.tree.flatten(params)

    def draw(key: Key, leaf: Array) -> Array:
        return jax.random.normal(key, leaf.shape, leaf.dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [draw(*each) for each in zip(keys, leaves, strict=True)])


def es_query_grad(
    adapt: AdaptFn,
    predict: PredictFn,
    loss: LossFn,
    *,
    population: int,
    sigma: float,
    chunk: int | None = None,
) -> GradFn:
    """The ES estimate of what `through_adaptation` differentiates: the query loss after adaptation.

    Nothing is differentiated, so `adapt` may search, round or sort. The rest is as in `es_grad`.

    This learner rounds what the support set says to whole numbers:

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> def adapt(key, params, support, steps=None):
    ...     return jnp.round(params * jnp.mean(support.y))
    >>> def predict(adapted, x, *, key=None, weight=None):
    ...     return adapted * jnp.ones_like(x)
    >>> grad = jaxdl.es_query_grad(
    ...     adapt, predict, jaxdl.mean_squared_error, population=100, sigma=0.1
    ... )
    >>> one = jnp.ones((1, 1))
    >>> episode = jaxdl.Episode(jaxdl.Batch(one, 20 * one), jaxdl.Batch(one, 30 * one))
    >>> found, metrics = jax.jit(grad)(jax.random.key(0), 0, jnp.float32(1), episode)
    >>> bool(found < 0)  # larger parameters would be better
    True
    """
    check_population(population, sigma, chunk)
    query_loss = after_adaptation(adapt, predict, loss)
    options: dict[str, Any] = {"population": population, "sigma": sigma, "chunk": chunk}

    def grad(key: Key, step: Count, params: Params, episode: Episode) -> tuple[Grads, Metrics]:
        def value(params: Params, key: Key) -> tuple[Scalar, Metrics]:
            return query_loss(params, key, episode, step)

        return es_grad(value, params, key, **options)

    def asking(ask: Ask, loss: LossFn) -> GradFn:
        return es_query_grad(*with_support(adapt, ask), loss, **options)

    return QueryGrad(grad, asking)


def es_estimator(*, population: int, sigma: float, chunk: int | None = None) -> Estimator:
    """ES estimates in place of the inner gradients of `descend`, whose `key` draws the noise.

    The inner loss is evaluated and not differentiated. `population` and `sigma` are as in
    `es_grad`.

    Args:
        chunk: pairs of perturbations that are evaluated at once; None takes all of them.

    Raises:
        InputError: as `es_grad`; or, from the inner gradient, if there is no key.

    >>> import jax, jaxdl
    >>> inner = jaxdl.es_estimator(population=100, sigma=0.1)(lambda w, key: (w**2, {}))
    >>> 4 < float(inner(3.0, jax.random.key(0))[0]) < 8  # 2 w = 6, with noise
    True
    """
    check_population(population, sigma, chunk)

    def estimator(loss: InnerLoss) -> InnerGrad:
        def grad(params: Params, key: Key | None, *args: PyTree) -> tuple[Grads, PyTree]:
            if key is None:
                raise InputError(
                    "es_estimator draws noise, and there is no key. Give descend the argument"
                    " `key=`, or the learner `inner_dropout=True`"
                )

            def value(params: Params, key: Key) -> tuple[Scalar, PyTree]:
                return loss(params, key, *args)

            return es_grad(value, params, key, population=population, sigma=sigma, chunk=chunk)

        return grad

    return estimator
