"""A gradient that changes in the course of meta-training."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax

from jaxdl.types import Count, GradFn, Grads, Key, Metrics, Params, PyTree


def by_phase(phases: Mapping[int, GradFn]) -> GradFn:
    """The gradient of the phase that the outer step is in. No other phase costs time.

    Keep the outer step unbatched, as the loop of jaxdl does. With a step for each task, all phases
    would be computed.

    Args:
        phases: the gradient of each phase, by its first step, in their order. The first begins at
            0. Their metrics have the same names.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> grads = [jaxdl.of_loss(lambda w, key, batch, step, n=n: (n * w, {})) for n in (1.0, 2.0)]
    >>> grad = jax.jit(by_phase({0: grads[0], 100: grads[1]}))
    >>> [float(grad(jax.random.key(0), step, 3.0, None)[0]) for step in (0, 99, 100)]
    [1.0, 1.0, 2.0]
    """
    first, *later = phases.values()
    starts = list(phases)[1:]
    if not later:
        return first

    def grad(key: Key, step: Count, params: Params, batch: PyTree) -> tuple[Grads, Metrics]:
        phase = jnp.sum(step >= jnp.asarray(starts))
        return lax.switch(phase, (first, *later), key, step, params, batch)

    return grad
